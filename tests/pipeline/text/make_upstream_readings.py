"""Write upstream_readings.json: what GPT-SoVITS's own text front ends give for our sentences.

    python tests/pipeline/text/make_upstream_readings.py PATH_TO_A_GPT_SOVITS_CHECKOUT

Conditions: jieba in place of jieba_fast, G2PW off, no Japanese user dictionary, no NLTK data (every word is tagged NN). The
checkout is only imported from; needs the five lang extras.
"""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

SENTENCES = {
    "en": [
        "The quick brown fox jumps over the lazy dog.",
        "I read 3 books in 1999 and 25 in 2005, the 21st cost $12.50!",
        "She left at 4:30 with 3/4 of the cake, 1.5km away.",
        "The children's dogs' tails, e.g. thirty-two of them, aren't wagging?",
        "OpenAI's GPT model and the well-known NASA team met on the 3rd.",
        "1. Zyxwort quibbled about a blorptastic café.",
        "Hi.",
    ],
    "zh": [
        "今天的天气真不错，我们一起去公园散步吧！",
        "我不知道他为什么不来，看一看再说，第一次总是不一样。",
        "请把这封信送到北京市朝阳区2024年12月31日之前，大约3.5公里。",
        "小朋友们在院子里玩儿，奶奶买了两斤苹果和几个馒头。",
        "气温-3℃到5~8℃，合格率99.5%，共1200多人，电话010-12345678。",
        "展览馆里有五百把雨伞，老虎很懒，我很了解你。",
        "8:30-12:45开会，x²+y=3/4，价格是￥25，对吗？",
        "繁體中文也可以唸，嗯…好的～",
    ],
    "ja": [
        "吾輩は猫である。名前はまだ無い。",
        "明日の朝、7時に駅で会いましょう！",
        "彼女は「はい」と言った、それから３０％の学生が笑った。",
        "ちょっと待ってください…東京タワーへ行きます？",
        "きっと好きになると思います。AIも。",
    ],
    "ko": [
        "나의 친구가 같이 학교에 갔습니다.",
        "꽃잎이 떨어지고 값이 올랐어요!",
        "오늘은 12월 25일, 사과 2개와 mp3를 샀다",
        "먹을 라면이 없네요; 읽고 싶은 책은 많다?",
        "닭을 좋아하는 사람은 없어요.",
    ],
    "yue": [
        "我哋今日去邊度食飯呀？",
        "佢話聽日會落雨，你記得帶遮。",
        "呢本書要45蚊，好平㗎！",
        "香港嘅夜景真係好靚…歐洲都係。",
        "唔該，五個蛋撻。",
    ],
}


def load_cleaner(checkout: Path):
    """upstream's clean_text, with stand-ins for what its checkout lacks."""
    import jieba
    import jieba.posseg
    import nltk
    import nltk.corpus
    import nltk.tag

    sys.path.insert(0, str(checkout / "GPT_SoVITS"))
    os.environ["version"] = "v2"  # noqa: SIM112
    nltk.download = lambda *_, **__: True
    nltk.pos_tag = lambda words: [(word, "NN") for word in words]
    nltk.corpus.cmudict = types.SimpleNamespace(dict=dict)
    sys.modules["jieba_fast"], sys.modules["jieba_fast.posseg"] = jieba, jieba.posseg
    sys.modules["ko_pron"] = types.ModuleType("ko_pron")
    mandarin = types.ModuleType("text.chinese2")
    mandarin.__file__ = str(checkout / "GPT_SoVITS" / "text" / "chinese2.py")
    source = Path(mandarin.__file__).read_text(encoding="utf-8").replace("is_g2pw = True", "is_g2pw = False")
    exec(compile(source, mandarin.__file__, "exec"), mandarin.__dict__)
    import text

    sys.modules["text.chinese2"] = text.chinese2 = mandarin
    from text.cleaner import clean_text

    return clean_text


def read(clean_text, sentence: str, language: str) -> dict[str, str | None]:
    phones, counts, normalised = clean_text(sentence, language, "v2")
    return {
        "phones": " ".join(phones),
        "word2ph": "".join(map(str, counts)) if counts else None,
        "normalised": normalised,
        "text": sentence,
    }


def main() -> None:
    checkout = Path(sys.argv[1])
    clean_text = load_cleaner(checkout)
    cases = {
        language: [read(clean_text, sentence, language) for sentence in sentences]
        for language, sentences in SENTENCES.items()
    }
    revision = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    target = Path(__file__).with_name("upstream_readings.json")
    target.write_text(
        json.dumps({"revision": revision, "cases": cases}, ensure_ascii=False, indent=1), encoding="utf-8"
    )


if __name__ == "__main__":
    main()

"""Chinese text to Chinese characters and pauses: dates, times, numbers, money, units, telephone numbers, symbols.

Upstream's rules (docs/text.md) are one table; ours are the same with some replaced and some in front. docs/text.md
lists where the two differ and why. Every rule sees the text between two punctuation marks, without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib.resources import files
from typing import Any

from pipeline.text.mandarin_numbers import cardinal, decimal, digits, signed
from pipeline.text.packages import require
from pipeline.text.rules import apply_rules, rule

_KEPT_BY_UPSTREAM = re.compile("[\u4e00-\u9fa5!?…,.-]")
_KEPT = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff!?…,.-]")


def normalise(text: str, *, as_upstream: bool = False) -> tuple[str, tuple[str, ...]]:
    """Text in simplified Chinese characters and ``! ? … , . -``, and the characters that no rule could read."""
    spoken = _spoken(text, as_upstream=as_upstream, keep_traditional=False)
    spoken = apply_rules(spoken, _UPSTREAM_PUNCTUATION if as_upstream else _PUNCTUATION)
    kept, unknown = _keep_readable(spoken, as_upstream=as_upstream)
    return re.sub(r"([!?…,.\-])[!?…,.\-]+", r"\1" if as_upstream else _strongest, kept), unknown


def normalise_cantonese(text: str, *, as_upstream: bool = False) -> tuple[str, tuple[str, ...]]:
    """As ``normalise``, with the characters as written: several traditional ones share a simplified one (隻 and 只).

    Upstream simplifies, and keeps runs of punctuation.
    """
    spoken = _spoken(text, as_upstream=as_upstream, keep_traditional=not as_upstream)
    spoken = apply_rules(spoken, _CANTONESE_PUNCTUATION if as_upstream else _PUNCTUATION[-1:])
    kept, unknown = _keep_readable(spoken, as_upstream=as_upstream)
    return kept if as_upstream else re.sub(r"([!?…,.\-])[!?…,.\-]+", _strongest, kept), unknown


def _spoken(text: str, *, as_upstream: bool, keep_traditional: bool) -> str:
    if not as_upstream:
        text = apply_rules(text, _BEFORE_SPLITTING)
    text = re.sub(r"[—《》【】<>{}()（）#&@“”^_|\\]", "", text.replace(" ", ""))
    pieces = re.split(r"\n+", re.sub(r"([：、，；。？！,;?!][”’]?)", r"\1\n", text).strip())
    pieces = [half_width(piece.strip()) for piece in pieces]
    if not keep_traditional:
        pieces = [simplify(piece, as_upstream=as_upstream) for piece in pieces]
    return "".join(apply_rules(piece, _UPSTREAM_RULES if as_upstream else _OUR_RULES) for piece in pieces)


def _keep_readable(spoken: str, *, as_upstream: bool) -> tuple[str, tuple[str, ...]]:
    kept = _KEPT_BY_UPSTREAM if as_upstream else _KEPT
    unknown = dict.fromkeys(
        c for c in spoken if not kept.match(c) and c not in _SILENT and unicodedata.category(c)[0] in "LNSM"
    )
    return "".join(c for c in spoken if kept.match(c)), tuple(unknown)


_SILENT = frozenset("`*<>|^_~～\N{VARIATION SELECTOR-16}")


def _strongest(match: re.Match[str]) -> str:
    """A run of punctuation becomes its strongest mark."""
    return next(mark for mark in "?!….,-" if mark in match[0])


# --- traditional to simplified -------------------------------------------------------------------
def half_width(text: str) -> str:
    """Full-width letters and digits as ASCII."""
    return "".join(chr(ord(c) - 0xFEE0) if c.isalnum() and "\uff00" < c < "\uff5f" else c for c in text)


def simplify(text: str, *, as_upstream: bool = False) -> str:
    """Simplified characters, as many as before."""
    if as_upstream:
        return "".join(_upstream_characters().get(c, c) for c in text)
    converted: str = _converter().convert(text)
    if len(converted) != len(text):
        return text
    return "".join(new if _KEPT_BY_UPSTREAM.match(new) else old for old, new in zip(text, converted, strict=True))


@cache
def _upstream_characters() -> dict[str, str]:
    """Upstream's one-to-one table, in which some characters (乾, 麼, 餘) keep another traditional form."""
    lines = (files("pipeline.text") / "data" / "mandarin-characters.txt").read_text(encoding="utf-8").splitlines()
    pairs = "".join(line for line in lines if not line.startswith("#"))
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


@cache
def _converter() -> Any:
    return require("opencc", "zh").OpenCC("t2s")


# --- dates and times -------------------------------------------------------------------------------
def _date(match: re.Match[str]) -> str:
    month = f"{cardinal(match['month'])}月" if match["month"] else ""
    day = f"{cardinal(match['day'])}{match['unit']}" if match["day"] else ""
    return f"{digits(match['year'])}年{month}{day}"


def _separated_date(match: re.Match[str]) -> str:
    return f"{digits(match['year'])}年{cardinal(match['month'])}月{cardinal(match['day'])}日"


def _clock(hour: str, minute: str, second: str | None, *, half: bool) -> str:
    spoken = f"{cardinal(hour)}点"
    if minute.strip("0") or minute == "10":
        spoken += "半" if half else f"{_padded(minute)}分"
    if second and second.lstrip("0"):
        spoken += f"{_padded(second)}秒"
    return spoken


def _padded(number: str) -> str:
    return ("零" if number.startswith("0") else "") + cardinal(number.lstrip("0"))


def _time(match: re.Match[str]) -> str:
    return _clock(match[1], match[2], match[3], half=match[2] == "30")


def _our_time(match: re.Match[str]) -> str:
    """Half past only where no seconds follow."""
    return _clock(match[1], match[2], match[3], half=match[2] == "30" and not match[3])


def _time_range(match: re.Match[str]) -> str:
    """Upstream asks the first time whether the second one is half past."""
    half = match[2] == "30"
    return f"{_time(match)}至{_clock(match[4], match[5], match[6], half=half)}"


_TIME = r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?"
_DATE_RULES = (
    rule(
        r"(?P<year>[0-9]{4}|[0-9]{2})年(?:(?P<month>0?[1-9]|1[0-2])月)?"
        r"(?:(?P<day>0?[1-9]|[12][0-9]|30|31)(?P<unit>[日号號]))?",
        _date,
    ),
    rule(
        r"(?P<year>[0-9]{4})(?P<separator>[- /.])(?P<month>0[1-9]|1[012])(?P=separator)"
        r"(?P<day>0[1-9]|[12][0-9]|3[01])",
        _separated_date,
    ),
)

# --- units -------------------------------------------------------------------------------------------
_UPSTREAM_UNITS = {
    "cm2": "平方厘米", "cm²": "平方厘米", "cm3": "立方厘米", "cm³": "立方厘米", "cm": "厘米", "db": "分贝",
    "ds": "毫秒", "kg": "千克", "km": "千米", "m2": "平方米", "m²": "平方米", "m³": "立方米", "m3": "立方米",
    "ml": "毫升", "m": "米", "mm": "毫米", "s": "秒",
}  # fmt: skip
_UNITS = _UPSTREAM_UNITS | {
    "km/h": "千米每小时", "m/s": "米每秒", "km²": "平方千米", "km2": "平方千米", "mm²": "平方毫米", "dB": "分贝",
    "ms": "毫秒", "Kg": "千克", "KG": "千克", "kg/m³": "千克每立方米", "g": "克", "mg": "毫克", "t": "吨", "L": "升",
    "l": "升", "mL": "毫升", "h": "小时", "min": "分钟", "Hz": "赫兹", "kHz": "千赫兹", "MHz": "兆赫兹",
    "GHz": "吉赫兹",
    "W": "瓦", "kW": "千瓦", "V": "伏", "A": "安", "mA": "毫安", "mAh": "毫安时", "nm": "纳米", "μm": "微米",
}  # fmt: skip
_RANGE_UNIT = "(?:%|°C|℃|度|摄氏度|" + "|".join(sorted(_UPSTREAM_UNITS, key=len, reverse=True)) + ")"
_QUANTIFIER = (
    "(?:[处台架枚趟幅平方堵间床株批项例列篇栋注亩封艘把目套段人所朵匹张座回场尾条个首阙阵网炮顶丘棵只支袭辆挑担颗壳窠曲墙群腔砣客贯扎捆刀令打手"
    "罗坡山岭江溪钟队单双对出口头脚板跳枝件贴针线管名位身堂课本页家户层丝毫厘分钱两斤铢石钧锱忽克寸尺丈里寻常铺程米撮勺合升斗盘碗碟叠桶笼盆盒杯斛锅簋"
    "篮罐瓶壶卮盏箩箱煲啖袋钵年月日季刻时周天秒旬纪岁世更夜春夏秋冬代伏辈丸泡粒幢堆根道面片块元亿千万百角毛處臺間條層塊張場雙對隻個歲項頁輛顆雙篇課戶萬億點錢時兩號]|小时|小時|公分|美元|十吨|吨|微克|微米)"
)


def _quantity(match: re.Match[str]) -> str:
    number = cardinal(match[1])
    return ("两" if number == "二" else number) + ("多" if match[2] == "+" else match[2] or "") + match[3]


def _temperature(match: re.Match[str]) -> str:
    unit = "摄氏度" if match[3] == "摄氏度" else "度"
    return ("零下" if match[1] else "") + decimal(match[2]) + unit


def _telephone(match: re.Match[str]) -> str:
    return "，".join(digits(part, one="幺") for part in match[0].strip("+").split("-"))


# --- numbers -----------------------------------------------------------------------------------------
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ", "0123456789xyn")
_POWER_SIGNS = "⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ"
_OPERATORS = {"+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等于"}
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"

_UNIT_TEXT_RULES = tuple(rule(re.escape(unit), name) for unit, name in _UPSTREAM_UNITS.items())
_ARITHMETIC = rule(rf"(?<=[0-9A-Za-z{_POWER_SIGNS}])([+\-×÷=])(?=-?[0-9]|\.[0-9]|[A-Za-z])", lambda m: _OPERATORS[m[1]])
_POWER = rule(f"[{_POWER_SIGNS}]+", lambda m: f"的{m[0].translate(_POWERS)}次方")
_TEMPERATURE = rule(r"(-?)([0-9]+(?:\.[0-9]+)?)(°C|℃|度|摄氏度)", _temperature)
_FRACTIONS = (
    rule(r"(-?)([0-9]+)/([0-9]+)", lambda m: f"{'负' if m[1] else ''}{cardinal(m[3])}分之{cardinal(m[2])}"),
    rule(r"(-?)([0-9]+(?:\.[0-9]+)?)%", lambda m: f"{'负' if m[1] else ''}百分之{decimal(m[2])}"),
)
_TELEPHONES = (
    rule(r"(?<![0-9])(?:\+?86)?1(?:[38][0-9]|5[0-35-9]|7[678]|9[89])[0-9]{8}(?![0-9])", _telephone),
    rule(r"(?<![0-9])(?:0(?:10|2[1-3]|[3-9][0-9]{2})-?)?[1-9][0-9]{6,7}(?![0-9])", _telephone),
    rule(r"400-?[0-9]{3}-?[0-9]{4}", _telephone),
)
_RANGE = rule(
    rf"(?<![0-9+\-×÷=])({_NUMBER})[-~]({_NUMBER})(?![0-9+\-×÷=])", lambda m: f"{signed(m[1])}到{signed(m[2])}"
)
_COUNTED = "\N{WORD JOINER}"
"""Behind a number that was written with thousands separators: a count, not a code to be read digit by digit."""
_PLAIN_NUMBERS = (
    rule(r"-([0-9]+)", lambda m: f"负{cardinal(m[1])}"),
    rule(r"[0-9]+(?:\.[0-9]+){2,}", lambda m: digits(m[0]).replace(".", "点")),
    rule(r"-?[0-9]+\.[0-9]+|\.[0-9]+", lambda m: signed(m[0])),
    rule(rf"([0-9]+)([多余几+])?({_QUANTIFIER})", _quantity),
    rule(rf"[0-9]{{3,}}(?![0-9{_COUNTED}])", lambda m: digits(m[0], one="幺")),
    rule(rf"{_NUMBER}|\.[0-9]+", lambda m: signed(m[0])),
)
_SPOKEN_SIGNS = {
    **dict(zip("①②③④⑤⑥⑦⑧⑨⑩", "一二三四五六七八九十", strict=True)),
    "α": "阿尔法", "β": "贝塔", "γ": "伽玛", "Γ": "伽玛", "δ": "德尔塔", "Δ": "德尔塔", "ε": "艾普西龙", "ζ": "捷塔",
    "η": "依塔", "θ": "西塔", "Θ": "西塔", "ι": "艾欧塔", "κ": "喀帕", "λ": "拉姆达", "Λ": "拉姆达", "μ": "缪",
    "ν": "拗", "ξ": "克西", "Ξ": "克西", "ο": "欧米克伦", "π": "派", "Π": "派", "ρ": "肉", "ς": "西格玛", "σ": "西格玛",
    "Σ": "西格玛", "τ": "套", "υ": "宇普西龙", "φ": "服艾", "Φ": "服艾", "χ": "器", "ψ": "普赛", "Ψ": "普赛",
    "ω": "欧米伽", "Ω": "欧米伽", "/": "每", "+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等",
}  # fmt: skip
_SIGNS = rule("|".join(map(re.escape, _SPOKEN_SIGNS)), lambda m: _SPOKEN_SIGNS[m[0]])

_UPSTREAM_RULES = (
    *_DATE_RULES,
    rule(f"{_TIME}[~-]{_TIME}", _time_range),
    rule(_TIME, _time),
    rule(
        rf"(?:{_NUMBER}|\.[0-9]+){_RANGE_UNIT}~(?:{_NUMBER}|\.[0-9]+){_RANGE_UNIT}", lambda m: m[0].replace("~", "至")
    ),
    _TEMPERATURE,
    *_UNIT_TEXT_RULES,
    _ARITHMETIC,
    _POWER,
    *_FRACTIONS,
    *_TELEPHONES,
    _RANGE,
    *_PLAIN_NUMBERS,
    _SIGNS,
)

# --- our rules ---------------------------------------------------------------------------------------
_CURRENCIES = {
    "￥": "元", "¥": "元", "$": "美元", "€": "欧元", "£": "英镑", "₩": "韩元", "₹": "卢比", "HK$": "港元",
    "NT$": "新台币",
    "US$": "美元",
}  # fmt: skip
_CURRENCY = "|".join(re.escape(sign) for sign in sorted(_CURRENCIES, key=len, reverse=True))
_SAID_AGAIN = f"块钱?|元(?![素旦宵气])|{'|'.join(n for n in _CURRENCIES.values() if n != '元')}"  # ￥5元
_AMOUNT = r"[0-9]+(?:\.[0-9]+)?"
_OUR_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))

_BEFORE_SPLITTING = (
    rule(r"[0-9]{1,3}(?:[,，][0-9]{3})+(?![0-9])", lambda m: re.sub("[,，]", "", m[0]) + _COUNTED),  # 12,345
    rule("：(?=[0-9]{2}(?![0-9]))", ":"),
    rule(r"\n+", "。"),
    rule("〇", "零"),
)
_OUR_RULES = (
    rule("[‰]", "%0"),
    rule(rf"({_AMOUNT})%0", lambda m: f"千分之{decimal(m[1])}"),
    rule(
        r"(?<![0-9])(?P<year>[12][0-9]{3})(?P<separator>[-/.])(?P<month>0?[1-9]|1[012])(?P=separator)"
        r"(?P<day>0?[1-9]|[12][0-9]|3[01])(?![0-9])",
        _separated_date,
    ),
    *_DATE_RULES,
    *_TELEPHONES,
    rule(f"{_TIME}[~～-]{_TIME}", lambda m: f"{_clock(m[1], m[2], m[3], half=m[2] == '30')}至"
         f"{_clock(m[4], m[5], m[6], half=m[5] == '30')}"),
    rule(rf"(?<![0-9]){_TIME}(?![0-9])", _our_time),
    rule(rf"({_CURRENCY})({_AMOUNT})([十百千万亿]*)(?:{_SAID_AGAIN})?",
         lambda m: f"{m[2]}{m[3]}{_CURRENCIES[m[1]]}"),
    rule(rf"(?<=[0-9十百千万亿{_COUNTED}])({_CURRENCY})", lambda m: _CURRENCIES[m[1]]),
    rule(rf"(?<![0-9+\-×÷=.])(-?{_AMOUNT}%?)[-~～–](-?{_AMOUNT}%?)(?![0-9+\-×÷=.])", r"\1至\2"),
    _TEMPERATURE,
    rule(rf"(?<=[0-9{_COUNTED}])({_OUR_UNIT})(?![A-Za-z0-9])", lambda m: _UNITS[m[1]]),
    _ARITHMETIC,
    _POWER,
    *_FRACTIONS,
    *_PLAIN_NUMBERS,
    _SIGNS,
    rule("[$￥¥]", "元"),
    rule("%", "百分号"),
)  # fmt: skip

# --- punctuation -------------------------------------------------------------------------------------
_MARKS = {
    "：": ",", "；": ",", "，": ",", "。": ".", "！": "!", "？": "?", "\n": ".", "·": ",", "、": ",",
    "...": "…", "$": ".",
    "/": ",", "—": "-", "~": "…", "～": "…",
}  # fmt: skip
_INTERJECTIONS = (rule("嗯", "恩"), rule("呣", "母"))
_UPSTREAM_PUNCTUATION = (*_INTERJECTIONS, rule("|".join(map(re.escape, _MARKS)), lambda m: _MARKS[m[0]]))
_CANTONESE_MARKS = _MARKS | {"~": "-", "～": "-"}
del _CANTONESE_MARKS["/"]
_CANTONESE_PUNCTUATION = (rule("|".join(map(re.escape, _CANTONESE_MARKS)), lambda m: _CANTONESE_MARKS[m[0]]),)
_OUR_MARKS = _MARKS | {";": ",", ":": ",", "｡": ".", "․": ".", "⋯": "…"}
_PUNCTUATION = (*_INTERJECTIONS, rule("|".join(map(re.escape, _OUR_MARKS)), lambda m: _OUR_MARKS[m[0]]))

"""A pickle machine that can only build plain data.

`pickle.Unpickler` with a filter still calls whatever passes it, sets attributes on classes, and offers opcodes that no
weight file uses. This one is written the other way round: it knows the few opcodes that `torch.save` emits, a global is
a name looked up in a table of constructors, nothing else is ever imported, called or written to.
`pickletools` only splits the bytes into opcodes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import WeightsError, shorten

MAX_OPCODES = 5_000_000
MAX_STRING = 1_000_000
MAX_STACK = 1_000_000
MAX_COPIED = 5_000_000  # entries of dictionaries that are poured into others
MAX_DEPTH = 64
MAX_INTEGER_BITS = 63

Construct = Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Global:
    """A name from the allow-list. It can be called by the pickle, and that is all."""

    name: str
    construct: Construct


class Mapped(dict[Any, Any]):
    """A dictionary that a pickle may give attributes to.

    ``keeps_state`` says whether they become entries (`utils.HParams`) or are dropped (the metadata of a state dict).
    """

    keeps_state = False


class Record(Mapped):
    """An object that becomes a plain dictionary of its attributes."""

    keeps_state = True


class _Mark:
    """Where a group of operands begins on the stack."""


_MARK = _Mark()


class Unpickler:
    """Reads one pickle.

    Args:
        source: named in every message.
        allowed: constructors by "module name", as the pickle spells it.
        persistent: turns a persistent id (a tuple) into a value.
    """

    def __init__(self, source: str, allowed: Mapping[str, Construct], persistent: Callable[[Any], Any]) -> None:
        self.source, self.allowed, self.persistent = source, allowed, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def load(self, data: bytes | bytearray) -> Any:
        """The value, made of dict, list, tuple, str, numbers, None and what the constructors return.

        Raises:
            WeightsError: an opcode, a global, a size or a nesting that no weight file has, or a damaged pickle.
        """
        try:
            for count, (opcode, argument, position) in enumerate(pickletools.genops(bytes(data))):
                if count >= MAX_OPCODES or len(self.stack) > MAX_STACK:
                    raise self._refused("has too many operations")
                if opcode.name == "STOP":
                    return plain(self._result(), self.source)
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise self._refused(f"uses the pickle operation {opcode.name} at byte {position}")
                step(self, argument)
        except WeightsError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise self._refused(f"is a damaged pickle ({type(error).__name__}: {error})") from error
        raise self._refused("is a damaged pickle without an end")

    def _refused(self, why: str) -> WeightsError:
        return WeightsError(f"{self.source}: refused, it {why}")

    def _result(self) -> Any:
        if len(self.stack) != 1:
            raise self._refused("is a damaged pickle that leaves no single value")
        return self.stack[0]

    # -- operands -------------------------------------------------------------------------------------------------

    def push_constant(self, value: Any) -> None:
        self.stack.append(value)

    def push_integer(self, value: int) -> None:
        if value.bit_length() > MAX_INTEGER_BITS:
            raise self._refused(f"holds an integer of {value.bit_length()} bits")
        self.stack.append(value)

    def push_string(self, value: str) -> None:
        if len(value) > MAX_STRING:
            raise self._refused(f"holds a string of {len(value)} characters")
        self.stack.append(value)

    def group(self) -> list[Any]:
        """Everything above the last mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise self._refused("is a damaged pickle that closes a group it never opened")

    def pop(self) -> Any:
        if self.stack[-1] is _MARK:
            raise self._refused("is a damaged pickle that takes from an empty group")
        return self.stack.pop()

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    # -- containers -----------------------------------------------------------------------------------------------

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise self._refused(f"appends to a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise self._refused(f"sets items of a {type(target).__name__}")
        if len(items) % 2:
            raise self._refused("is a damaged pickle with a key that has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise self._refused(f"uses a {type(key).__name__} as a key")
            target[key] = value

    # -- globals --------------------------------------------------------------------------------------------------

    def find(self, name: str) -> None:
        construct = self.allowed.get(name)
        if construct is None:
            raise self._refused(f"names the global {shorten(name)!r}, which is not part of any weight file we read")
        self.stack.append(Global(name, construct))

    def find_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self._refused(f"names a global by a {type(name).__name__} and a {type(module).__name__}")
        self.find(f"{module} {name}")

    def call(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise self._refused(f"calls a {type(target).__name__}")
        self.stack.append(target.construct(arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, Mapped) or not isinstance(state, dict):
            raise self._refused(f"sets attributes of a {type(target).__name__}")
        self.copied += len(state)
        if self.copied > MAX_COPIED:
            raise self._refused("has too many operations")
        if target.keeps_state:
            target.update(state)

    # -- memory ---------------------------------------------------------------------------------------------------

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def refer(self) -> None:
        self.stack.append(self.persistent(self.pop()))


_STEPS: dict[str, Callable[[Unpickler, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "MARK": lambda machine, argument: machine.push_constant(_MARK),
    "NONE": lambda machine, argument: machine.push_constant(None),
    "NEWTRUE": lambda machine, argument: machine.push_constant(True),
    "NEWFALSE": lambda machine, argument: machine.push_constant(False),
    "BINFLOAT": lambda machine, argument: machine.push_constant(argument),
    "BININT": lambda machine, argument: machine.push_integer(argument),
    "BININT1": lambda machine, argument: machine.push_integer(argument),
    "BININT2": lambda machine, argument: machine.push_integer(argument),
    "LONG1": lambda machine, argument: machine.push_integer(argument),
    "BINUNICODE": lambda machine, argument: machine.push_string(argument),
    "SHORT_BINUNICODE": lambda machine, argument: machine.push_string(argument),
    "EMPTY_DICT": lambda machine, argument: machine.push_constant({}),
    "EMPTY_LIST": lambda machine, argument: machine.push_constant([]),
    "EMPTY_TUPLE": lambda machine, argument: machine.push_constant(()),
    "TUPLE": lambda machine, argument: machine.push_constant(tuple(machine.group())),
    "TUPLE1": lambda machine, argument: machine.tuple_of(1),
    "TUPLE2": lambda machine, argument: machine.tuple_of(2),
    "TUPLE3": lambda machine, argument: machine.tuple_of(3),
    "APPEND": lambda machine, argument: machine.append([machine.pop()]),
    "APPENDS": lambda machine, argument: machine.append(machine.group()),
    "SETITEM": lambda machine, argument: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, argument: machine.set_items(machine.group()),
    "GLOBAL": lambda machine, argument: machine.find(argument),
    "STACK_GLOBAL": lambda machine, argument: machine.find_on_stack(),
    "REDUCE": lambda machine, argument: machine.call(),
    "NEWOBJ": lambda machine, argument: machine.call(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPUT": lambda machine, argument: machine.remember(argument),
    "LONG_BINPUT": lambda machine, argument: machine.remember(argument),
    "MEMOIZE": lambda machine, argument: machine.remember(len(machine.memo)),
    "BINGET": lambda machine, argument: machine.recall(argument),
    "LONG_BINGET": lambda machine, argument: machine.recall(argument),
    "BINPERSID": lambda machine, argument: machine.refer(),
}


def plain(value: Any, source: str) -> Any:
    """The value with plain dicts in place of `Mapped`; refuses cycles, deep nesting and globals left lying around.

    A container that is referred to many times is converted once, so shared references cost nothing.
    """
    done: dict[int, Any] = {}
    open_now: set[int] = set()

    def convert(item: Any, depth: int) -> Any:
        if isinstance(item, Global | _Mark):
            raise WeightsError(f"{source}: refused, it stores the global {getattr(item, 'name', 'mark')!r} as a value")
        if not isinstance(item, dict | list | tuple):
            return item
        key = id(item)
        if key in done:
            return done[key]
        if key in open_now or depth > MAX_DEPTH:
            raise WeightsError(f"{source}: refused, its data is nested without end")
        open_now.add(key)
        if isinstance(item, dict):
            made: Any = {name: convert(entry, depth + 1) for name, entry in item.items()}
        else:
            made = type(item)(convert(entry, depth + 1) for entry in item)
        open_now.discard(key)
        done[key] = made
        return made

    return convert(value, 0)

"""The parser of PTX text: the entry point, its parameters, registers, labels and memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import EmulatorError, Unsupported
from .ptx_types import WIDTH

SHARED_DECLARATION = re.compile(
    r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(\[\s*\d*\s*\])?\s*;"
)
IGNORED_DECLARATIONS = (".pragma",)


@dataclass(frozen=True)
class Instruction:
    """One PTX instruction as text, split into its parts."""

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    predicate: str | None = None
    negated: bool = False

    @property
    def text(self) -> str:
        """Return the instruction as PTX."""
        guard = f"@{'!' if self.negated else ''}{self.predicate} " if self.predicate else ""
        name = ".".join((self.opcode, *self.modifiers))
        return f"{guard}{name} {', '.join(self.operands)}".rstrip()

    def has(self, *modifiers: str) -> bool:
        """Return True if any of the modifiers is present."""
        return any(modifier in self.modifiers for modifier in modifiers)


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter; arrays have a `count`."""

    name: str
    ptx_type: str
    count: int | None


@dataclass
class Parsed:
    """One entry of a PTX module."""

    name: str
    target: str
    threads: int | None = None
    parameters: list[Parameter] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    shared: dict[str, int] = field(default_factory=dict)
    static_shared: int = 0


def parse(ptx: str, entry: str | None = None) -> Parsed:
    """Parse one entry of a module, by default the first."""
    text = _without_comments(ptx)
    target = re.search(r"\.target\s+(\w+)", text)
    names = re.findall(r"\.entry\s+([\w$]+)", text)
    if target is None or not names:
        raise EmulatorError("no .target or no .entry in this PTX")
    name = entry or names[0]
    head = re.search(r"\.entry\s+" + re.escape(name) + r"\s*\((.*?)\)([^{]*)\{", text, re.DOTALL)
    if head is None:
        raise EmulatorError(f"entry {name} not found among {names}")

    parsed = Parsed(name, target.group(1))
    threads = re.search(r"\.reqntid\s+(\d+)", head.group(2))
    parsed.threads = int(threads.group(1)) if threads else None
    parsed.parameters = [_parameter(text) for text in split_operands(head.group(1))]
    _declare_shared(parsed, text)
    for statement in _statements(text[head.end() : _closing_brace(text, head.end())]):
        _add_statement(parsed, statement)
    return parsed


def split_operands(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def vector_elements(operand: str) -> list[str]:
    """Return the registers of `{%r1, %r2}`, or the one operand."""
    return split_operands(operand[1:-1]) if operand.startswith("{") else [operand]


def parse_instruction(text: str) -> Instruction:
    """Parse one instruction without its semicolon."""
    predicate, negated = None, False
    guard = re.match(r"^@(!?)([%\w$]+)\s+(.*)$", text)
    if guard:
        negated, predicate, text = guard.group(1) == "!", guard.group(2), guard.group(3)
    name, _, operands = text.partition(" ")
    opcode, *modifiers = name.split(".")
    return Instruction(
        opcode, tuple(modifiers), tuple(split_operands(operands)), predicate, negated
    )


def _without_comments(ptx: str) -> str:
    ptx = re.sub(r"/\*.*?\*/", "", ptx, flags=re.DOTALL)
    ptx = re.sub(r"//[^\n]*", "", ptx)
    return re.sub(r"^\s*\.(loc|file)\b[^\n]*$", "", ptx, flags=re.MULTILINE)


def _parameter(text: str) -> Parameter:
    kind = re.search(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)", text)
    name = re.search(r"([\w$]+)(?:\[(\d+)\])?\s*$", text)
    if kind is None or name is None:
        raise Unsupported(f"parameter {text}")
    count = int(name.group(2)) if name.group(2) else None
    return Parameter(name.group(1), kind.group(1), count)


def _declare_shared(parsed: Parsed, text: str) -> None:
    dynamic = []
    for alignment, ptx_type, name, extent in SHARED_DECLARATION.findall(text):
        digits = extent.strip("[] ")
        if extent and not digits:
            dynamic.append(name)
            continue
        start = _round_up(parsed.static_shared, int(alignment or WIDTH[ptx_type] // 8))
        parsed.shared[name] = start
        parsed.static_shared = start + WIDTH[ptx_type] // 8 * int(digits or 1)
    if dynamic:
        parsed.static_shared = _round_up(parsed.static_shared, 16)
    parsed.shared |= {name: parsed.static_shared for name in dynamic}


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _closing_brace(text: str, start: int) -> int:
    depth, position = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        position += 1
    return position - 1


def _statements(body: str) -> Iterator[str]:
    """Return the statements without their semicolons; no operand contains one."""
    for statement in body.split(";"):
        yield " ".join(statement.split())


def _add_statement(parsed: Parsed, text: str) -> None:
    text = _add_labels(parsed, text)
    if not text or text.startswith((*IGNORED_DECLARATIONS, ".shared")):
        return
    if text.startswith((".reg", ".param")):
        _declare_registers(parsed, text)
    elif text.startswith("."):
        raise Unsupported(f"directive {text}")
    else:
        parsed.instructions.append(parse_instruction(text))


def _add_labels(parsed: Parsed, text: str) -> str:
    """Remove labels, and the braces of inline assembly, from the start of a statement."""
    while True:
        text = text.lstrip("{} ")
        label = re.match(r"^([\w$]+):", text)
        if label is None:
            return text
        parsed.labels[label.group(1)] = len(parsed.instructions)
        text = text[label.end() :]


def _declare_registers(parsed: Parsed, text: str) -> None:
    """Declare registers, and the `.param` registers of the arguments of a call."""
    declaration = re.match(r"\.(?:reg|param)\s+\.(\w+)\s+(.*)", text)
    if declaration is None or "[" in text:
        raise Unsupported(f"directive {text}")
    width = WIDTH[declaration.group(1)]
    for name in split_operands(declaration.group(2)):
        family = re.match(r"([%\w$]+)<(\d+)>", name)
        if family is None:
            parsed.registers[name] = width
            continue
        prefix, count = family.group(1), int(family.group(2))
        parsed.registers |= {f"{prefix}{index}": width for index in range(count)}

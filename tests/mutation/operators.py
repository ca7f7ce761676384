"""The small faults that mutation testing plants in a module, one at a time.

Most operators are mutmut's. Its own runner is not used, for it leaves out decorated functions and the constants of
modules, where much of the numeric core lies. Annotations, decorators, error messages and assertions are left alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

TWINS = [  # names and words that are easily taken for each other
    ("argmax", "argmin"),
    ("max", "min"),
    ("maximum", "minimum"),
    ("amax", "amin"),
    ("mean", "sum"),
    ("cos", "sin"),
    ("any", "all"),
    ("floor", "ceil"),
    ("height", "width"),
    ("zeros", "ones"),
    ("zeros_", "ones_"),
    ("softmax", "log_softmax"),
    ('"bilinear"', '"bicubic"'),
    ('"BICUBIC"', '"BILINEAR"'),
    ("INTER_AREA", "INTER_LINEAR"),
    ('"border"', '"zeros"'),
    ('"sum"', '"mean"'),
    ('"published"', '"corrected"'),
    ('"mono"', '"stereo"'),
    ('"big"', '"little"'),
]
LEFT_ALONE = (cst.Annotation, cst.Decorator, cst.Raise, cst.Assert, cst.Import, cst.ImportFrom)
SWAPPED = dict(TWINS) | {second: first for first, second in TWINS}


@dataclass(frozen=True, eq=False)
class Mutant:
    """A module with one fault."""

    module: cst.Module
    node: cst.CSTNode
    changed: cst.CSTNode
    line: int

    @cached_property
    def code(self) -> str:
        """The module's text."""
        return self.module.deep_replace(self.node, self.changed).code

    @property
    def difference(self) -> tuple[str, str]:
        """The lines that differ from the module's, each in one line: what was there, and what became of it."""
        return _difference(self.module.code, self.code)


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module in the order of its lines, each text once."""
    wrapper, visitor = MetadataWrapper(cst.parse_module(source)), _Visitor()
    wrapper.module.visit(visitor)
    positions, code = wrapper.resolve(PositionProvider), wrapper.module.code_for_node
    found = {
        (positions[node].start.line, positions[node].start.column, code(node), code(changed)): (node, changed)
        for node, changed in visitor.found
        if code(node) != code(changed)
    }
    return [Mutant(wrapper.module, *pair, key[0]) for key, pair in sorted(found.items(), key=itemgetter(0))]


class _Visitor(cst.CSTVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, LEFT_ALONE) or (isinstance(node, cst.Arg) and _is_strict(node)):
            return False
        self.found += [(node, changed) for changed in _changes(node)]
        return True


def _changes(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    operators: list[tuple[Any, Any]] = [
        (cst.BaseNumber, mutators.operator_number),
        (cst.BaseNumber, _nearby),
        (cst.Name, mutators.operator_name),
        (cst.Name | cst.SimpleString, _twin),
        (cst.AugAssign, mutators.operator_augmented_assignment),
        (cst.UnaryOperation, mutators.operator_remove_unary_ops),
        (cst.IfExp, mutators.operator_if_exp),
        (cst.Call, _argument_left_out),
        (cst.SimpleStatementLine | cst.If, _left_out),
        (cst.CSTNode, mutators.operator_keywords),
        (cst.CSTNode, mutators.operator_swap_op),
    ]
    for kind, operator in operators:
        if isinstance(node, kind):
            yield from operator(node)


def _nearby(node: cst.BaseNumber) -> Iterator[cst.CSTNode]:
    """One less, and of a fraction a tenth more."""
    if isinstance(node, cst.Integer):
        less = node.evaluated_value - 1
        number = node.with_changes(value=repr(abs(less)))
        yield number if less >= 0 else cst.UnaryOperation(cst.Minus(), number)
    elif isinstance(node, cst.Float):
        yield node.with_changes(value=repr(node.evaluated_value * 1.1))


def _twin(node: cst.Name | cst.SimpleString) -> Iterator[cst.CSTNode]:
    if node.value in SWAPPED:
        yield node.with_changes(value=SWAPPED[node.value])


def _argument_left_out(node: cst.Call) -> Iterator[cst.CSTNode]:
    for changed in mutators.operator_arg_removal(node):
        gone = [arg for arg in node.args if arg not in changed.args]
        if len(changed.args) < len(node.args) and not any(map(_is_strict, gone)):
            yield changed


def _is_strict(arg: cst.Arg) -> bool:
    """The `strict` of zip, which is an assertion."""
    return arg.keyword is not None and arg.keyword.value == "strict"


def _left_out(node: cst.SimpleStatementLine | cst.If) -> Iterator[cst.CSTNode]:
    """Leave out what is done for its effect: a call, a += b, and an `if` without `else`."""
    nothing = cst.SimpleStatementLine([cst.Pass()])
    if isinstance(node, cst.If):
        if node.orelse is None:
            yield nothing
    elif isinstance(node.body[0], cst.AugAssign) or (
        isinstance(node.body[0], cst.Expr) and isinstance(node.body[0].value, cst.Call)
    ):
        yield nothing


def _difference(before: str, after: str) -> tuple[str, str]:
    """The lines that changed, before and after, each in one line."""
    old, new = before.splitlines(), after.splitlines()
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = zip(reversed(old[first:]), reversed(new[first:]), strict=False)
    last = next((i for i, (a, b) in enumerate(rest) if a != b), min(len(old), len(new)) - first)
    return tuple(" ".join(line.strip() for line in lines[first : len(lines) - last]) for lines in (old, new))

"""The rows of a grid under a window, each as one vector of the processor: sums over them, and additions to them.

A row of w points is w pairs of numbers that follow each other in memory, and all of them meet the same numbers of the
other axes. Numba takes them one by one, which takes two to three times as long; so this is written as vector code of
LLVM, which becomes that of the processor. To be called from functions compiled by Numba, with arrays of float32 and a
`width` that is a tuple of length w; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types as numba_types
from numba.np import arrayobj

from hoarfrost.maths.compiled import FAST, written

types: Any = numba_types
make_array: Any = arrayobj.make_array
FLOAT, INDEX, LANE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
FLOAT_BYTES = 4


@written
def sum_rows(
    typing: Any, grid: Any, first: Any, side: Any, values: Any, x: Any, y: Any, z: Any, width: Any
) -> tuple[Any, Any]:
    """(re, im) of the sum of `grid` (side³, 2) under a window whose first point is number `first`.

    `x`, `y` and `z` are the rows of `values` (entries, w) that have the window along these axes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        grid, first, side, values, x, y, z, _ = args
        code = _Code(context, builder, signature, len(width))
        points, table = code.numbers_of(0, grid), code.numbers_of(3, values)
        total = None
        for place_z, along_z in zip(code.planes(first, side), code.each(table, z), strict=True):
            plane = None
            for place, along_y in zip(code.rows(place_z, side), code.each(table, y), strict=True):
                plane = code.plus(plane, code.load(points, place, 2), along_y)
            total = code.plus(total, plane, along_z)
        return code.tuple_of(code.sums_of_pairs(total, code.row_of(table, x, 2)))

    return types.UniTuple(types.float32, 2)(grid, first, side, values, x, y, z, width), generate


@written
def expand_rows(
    typing: Any, grid: Any, first: Any, side: Any, values: Any, slopes: Any, x: Any, y: Any, z: Any, width: Any
) -> tuple[Any, Any]:
    """The same sum and its derivatives by x, y and z, real and imaginary part of each in turn.

    `slopes` (entries, w) are those of the window.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        grid, first, side, values, slopes, x, y, z, _ = args
        code = _Code(context, builder, signature, len(width))
        points, table, by = code.numbers_of(0, grid), code.numbers_of(3, values), code.numbers_of(4, slopes)
        total, by_y, by_z = None, None, None
        for place_z, along_z, slope_z in zip(
            code.planes(first, side), code.each(table, z), code.each(by, z), strict=True
        ):
            plane, plane_by_y = None, None
            for place, along_y, slope_y in zip(
                code.rows(place_z, side), code.each(table, y), code.each(by, y), strict=True
            ):
                row = code.load(points, place, 2)
                plane = code.plus(plane, row, along_y)
                plane_by_y = code.plus(plane_by_y, row, slope_y)
            total = code.plus(total, plane, along_z)
            by_y = code.plus(by_y, plane_by_y, along_z)
            by_z = code.plus(by_z, plane, slope_z)
        along_x, slope_x = code.row_of(table, x, 2), code.row_of(by, x, 2)
        parts = (total, along_x), (total, slope_x), (by_y, along_x), (by_z, along_x)
        return code.tuple_of([number for part in parts for number in code.sums_of_pairs(*part)])

    return types.UniTuple(types.float32, 8)(grid, first, side, values, slopes, x, y, z, width), generate


@written
def add_rows(
    typing: Any, grid: Any, first: Any, side: Any, values: Any, x: Any, y: Any, numbers: Any, width: Any
) -> tuple[Any, Any]:
    """Add one or two numbers, a tuple, to `grid` (side³,) or (side³, 2) under one plane of a window.

    `first` is the number of the plane's first point.
    """
    per_point = len(numbers)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        grid, first, side, values, x, y, numbers, _ = args
        code = _Code(context, builder, signature, len(width))
        points, table = code.numbers_of(0, grid), code.numbers_of(3, values)
        every = code.repeated([builder.extract_value(numbers, i) for i in range(per_point)], per_point)
        row = code.times(code.row_of(table, x, per_point), every)
        for place, along_y in zip(code.rows(first, side), code.all_of(table, y), strict=True):
            code.add_to(points, place, row, code.repeated([along_y], per_point), per_point)
        return context.get_dummy_value()

    return types.void(grid, first, side, values, x, y, numbers, width), generate


class _Code:
    """Writes LLVM code: vectors of w points with one or two numbers each."""

    def __init__(self, context: Any, builder: Any, signature: Any, width: int) -> None:
        self._context, self._builder, self._signature, self._width = context, builder, signature, width

    def numbers_of(self, argument: int, array: Any) -> Any:
        """Where the numbers of an array begin, which is the argument of that number."""
        return make_array(self._signature.args[argument])(self._context, self._builder, array).data

    def planes(self, first: Any, side: Any) -> list[Any]:
        """Numbers of the first points of each plane."""
        return self._steps(first, self._builder.mul(side, side))

    def rows(self, first: Any, side: Any) -> list[Any]:
        """Numbers of the first points of each row."""
        return self._steps(first, side)

    def _steps(self, first: Any, step: Any) -> list[Any]:
        build = self._builder
        return [build.add(first, build.mul(step, INDEX(i))) for i in range(self._width)]

    def load(self, numbers: Any, point: Any, per_point: int) -> Any:
        """The vector of a row whose first point has that number."""
        vector = self._builder.load(self._place(numbers, point, per_point))
        vector.align = FLOAT_BYTES
        return vector

    def add_to(self, numbers: Any, point: Any, added: Any, factor: Any, per_point: int) -> None:
        """Add a vector times a factor to a row."""
        place = self._place(numbers, point, per_point)
        old = self._builder.load(place)
        old.align = FLOAT_BYTES
        self._builder.store(self.plus(old, added, factor), place).align = FLOAT_BYTES

    def _place(self, numbers: Any, point: Any, per_point: int) -> Any:
        first = self._builder.gep(numbers, [self._builder.mul(point, INDEX(per_point))])
        return self._builder.bitcast(first, _vector(per_point * self._width).as_pointer())

    def all_of(self, table: Any, entry: Any) -> list[Any]:
        """The w numbers of a row of a table."""
        build = self._builder
        first = build.mul(entry, INDEX(self._width))
        return [build.load(build.gep(table, [build.add(first, INDEX(i))])) for i in range(self._width)]

    def each(self, table: Any, entry: Any) -> list[Any]:
        """The same as vectors, to multiply rows of pairs with."""
        return [self.repeated([number], 2) for number in self.all_of(table, entry)]

    def row_of(self, table: Any, entry: Any, per_point: int) -> Any:
        """The same as one vector, each number as often as a point has some."""
        first = self._builder.gep(table, [self._builder.mul(entry, INDEX(self._width))])
        row = self._builder.load(self._builder.bitcast(first, _vector(self._width).as_pointer()))
        row.align = FLOAT_BYTES
        return self._chosen(row, [i // per_point for i in range(per_point * self._width)])

    def repeated(self, numbers: Sequence[Any], per_point: int) -> Any:
        """Numbers, in turn, as often as a row of points has some."""
        vector: Any = ir.Constant(_vector(len(numbers)), ir.Undefined)
        for i, number in enumerate(numbers):
            vector = self._builder.insert_element(vector, number, LANE(i))
        return self._chosen(vector, [i % len(numbers) for i in range(per_point * self._width)])

    def times(self, a: Any, b: Any) -> Any:
        """Their product."""
        return self._builder.fmul(a, b, flags=tuple(FAST))

    def plus(self, total: Any, vector: Any, factor: Any) -> Any:
        """The total, None for nothing yet, and a vector times a factor."""
        product = self.times(vector, factor)
        return product if total is None else self._builder.fadd(total, product, flags=tuple(FAST))

    def sums_of_pairs(self, vector: Any, factor: Any) -> list[Any]:
        """The sums of every other number of a vector times a factor: of the first of each pair, and of the second."""
        vector, n = self.times(vector, factor), self._width
        while n > 1:
            half = n - n // 2
            low = self._chosen(vector, range(2 * half))
            # Of an odd number of pairs the middle one meets zeros.
            high = self._chosen(vector, [2 * half + i if i < 2 * (n - half) else 2 * n for i in range(2 * half)])
            vector, n = self._builder.fadd(low, high, flags=tuple(FAST)), half
        return [self._builder.extract_element(vector, LANE(i)) for i in range(2)]

    def tuple_of(self, numbers: list[Any]) -> Any:
        """What an intrinsic returns."""
        return self._context.make_tuple(self._builder, self._signature.return_type, numbers)

    def _chosen(self, vector: Any, places: Sequence[int]) -> Any:
        """The numbers at those places of a vector, which zeros follow."""
        zeros = ir.Constant(vector.type, [FLOAT(0.0)] * vector.type.count)
        chosen = ir.Constant(_vector(len(places), LANE), [LANE(place) for place in places])
        return self._builder.shuffle_vector(vector, zeros, chosen)


def _vector(lanes: int, of: Any = FLOAT) -> Any:
    return ir.VectorType(of, lanes)

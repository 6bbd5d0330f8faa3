"""The rows of a grid under a window, each as one vector of the processor: sums over them, and additions to them.

A row of w points is w pairs of numbers that follow each other in memory, and all of them are multiplied by the same
numbers of the other axes. Numba would take them one by one, so this writes vector code of LLVM. Functions compiled by
Numba call it, with arrays of float32 and a `WindowTable`; nothing is checked.
"""

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
def sum_rows(typing: Any, grid: Any, first: Any, table: Any, entries: Any) -> tuple[Any, Any]:
    """(re, im) of the sum of `grid` (side³, 2) under a window whose first point is number `first`.

    `entries` are the rows of the `WindowTable` that have the window along x, y and z.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        points, values, (x, y, z) = code.points(), code.table("values"), code.numbers_of(3)
        total = None
        for place_z, along_z in zip(code.planes(args[1]), code.each(values, z), strict=True):
            plane = None
            for place, along_y in zip(code.rows(place_z), code.each(values, y), strict=True):
                plane = code.plus(plane, code.load(points, place, 2), along_y)
            total = code.plus(total, plane, along_z)
        return code.tuple_of(code.sums_of_pairs(total, code.row_of(values, x, 2)))

    return types.UniTuple(types.float32, 2)(grid, first, table, entries), generate


@written
def expand_rows(typing: Any, grid: Any, first: Any, table: Any, entries: Any) -> tuple[Any, Any]:
    """The same sum and its derivatives by x, y and z, real and imaginary part of each in turn."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        points, (x, y, z) = code.points(), code.numbers_of(3)
        values, slopes = code.table("values"), code.table("slopes")
        total, by_y, by_z = None, None, None
        for place_z, along_z, slope_z in zip(
            code.planes(args[1]), code.each(values, z), code.each(slopes, z), strict=True
        ):
            plane, plane_by_y = None, None
            for place, along_y, slope_y in zip(
                code.rows(place_z), code.each(values, y), code.each(slopes, y), strict=True
            ):
                row = code.load(points, place, 2)
                plane = code.plus(plane, row, along_y)
                plane_by_y = code.plus(plane_by_y, row, slope_y)
            total = code.plus(total, plane, along_z)
            by_y = code.plus(by_y, plane_by_y, along_z)
            by_z = code.plus(by_z, plane, slope_z)
        along_x, slope_x = code.row_of(values, x, 2), code.row_of(slopes, x, 2)
        parts = (total, along_x), (total, slope_x), (by_y, along_x), (by_z, along_x)
        return code.tuple_of([number for part in parts for number in code.sums_of_pairs(*part)])

    return types.UniTuple(types.float32, 8)(grid, first, table, entries), generate


@written
def add_rows(typing: Any, grid: Any, first: Any, table: Any, entries: Any, numbers: Any) -> tuple[Any, Any]:
    """Add one or two numbers, a tuple, to `grid` (side³,) or (side³, 2) under one plane of a window.

    `first` is the number of the plane's first point, `entries` are those along x and y.
    """
    per_point = len(numbers)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        points, values, (x, y) = code.points(), code.table("values"), code.numbers_of(3)
        every = code.repeated(code.numbers_of(4), per_point)
        row = code.times(code.row_of(values, x, per_point), every)
        for place, along_y in zip(code.rows(args[1]), code.all_of(values, y), strict=True):
            code.add_to(points, place, row, code.repeated([along_y], per_point), per_point)
        return context.get_dummy_value()

    return types.void(grid, first, table, entries, numbers), generate


class _Code:
    """Writes LLVM code: vectors of w points with one or two numbers each.

    The arguments are a grid, the number of a point, a `WindowTable`, and tuples of numbers.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._context, self._builder, self._signature, self._args = context, builder, signature, args
        self._width = len(self._field("width")[0])
        self._side = self._field("side")[1]

    def _field(self, name: str) -> tuple[Any, Any]:
        """Type and value of that field of the table."""
        table = self._signature.args[2]
        place = table.fields.index(name)
        return table.types[place], self._builder.extract_value(self._args[2], place)

    def points(self) -> Any:
        """Where the numbers of the grid begin."""
        return self._start_of(self._signature.args[0], self._args[0])

    def table(self, name: str) -> Any:
        """Where the numbers of that field of the table begin."""
        return self._start_of(*self._field(name))

    def _start_of(self, array_type: Any, array: Any) -> Any:
        return make_array(array_type)(self._context, self._builder, array).data

    def numbers_of(self, argument: int) -> list[Any]:
        """The numbers of an argument that is a tuple."""
        value, n = self._args[argument], len(self._signature.args[argument])
        return [self._builder.extract_value(value, i) for i in range(n)]

    def planes(self, first: Any) -> list[Any]:
        """Numbers of the first points of each plane."""
        return self._steps(first, self._builder.mul(self._side, self._side))

    def rows(self, first: Any) -> list[Any]:
        """Numbers of the first points of each row."""
        return self._steps(first, self._side)

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

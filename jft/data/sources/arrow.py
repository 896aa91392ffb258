# SPDX-License-Identifier: Apache-2.0
"""Types and content of Arrow tables."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any


def digest_tables(tables: Iterable[Any], facts: Sequence[str] = ()) -> str:
    """Hash the names, types and values of tables to 16 hexadecimal digits.

    Of files that are stored as ``{bytes, path}``, such as images, the path and the
    number of bytes are hashed, for there may be very many bytes.

    Args:
      tables: ``pyarrow.Table``s, hashed one by one: other parts, another digest.
      facts: further strings to hash.
    """
    import pyarrow as pa

    state = hashlib.blake2b(digest_size=8)
    for fact in facts:
        state.update(fact.encode() + b"\0")
    for table in tables:
        # take() copies into new buffers: no trace of slices, offsets or chunks is left
        table = table.replace_schema_metadata(None).combine_chunks()
        table = table.take(pa.array(range(table.num_rows), pa.int64()))
        columns = {name: _hashable(table[name]) for name in table.column_names}
        table, sink = pa.table(columns), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        state.update(sink.getvalue())
    return state.hexdigest()


def _hashable(column: Any) -> Any:
    import pyarrow.compute as pc

    if not is_file(column.type):
        return column
    size = pc.binary_length(pc.struct_field(column, "bytes"))
    path = pc.struct_field(column, "path")
    return pc.make_struct(size, path, field_names=["size", "path"])


def is_file(kind: Any) -> bool:
    """Say whether values of that type are files: ``{bytes, path}``, as images are."""
    import pyarrow as pa

    if not pa.types.is_struct(kind) or {f.name for f in kind} != {"bytes", "path"}:
        return False
    bytes_type = kind.field("bytes").type
    return bool(pa.types.is_binary(bytes_type) or pa.types.is_large_binary(bytes_type))


def plain_type(kind: Any) -> Any:
    """Return the type whose values are those of a type without its encoding.

    Dictionaries become their values and extensions, such as JSON, what they are
    stored as, also within lists and structs.

    >>> import pyarrow as pa  # doctest: +SKIP
    >>> plain_type(pa.list_(pa.dictionary(pa.int8(), pa.string())))  # doctest: +SKIP
    ListType(list<item: string>)
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(plain_type(f.type)) for f in kind])
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return kind
    make = pa.list_ if pa.types.is_list(kind) else pa.large_list
    return make(kind.value_field.with_type(plain_type(kind.value_type)))

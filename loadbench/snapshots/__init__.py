"""What a run leaves behind, read safely: by size, by schema, by checksum.

Run folders come from other machines, other versions and other people. `files` reads them within
bounds, `schema` brings old snapshots to today's form, `sums` tells what was altered since. Where
the files lie and what is in them is `runlog`'s.
"""

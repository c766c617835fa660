"""The archive of codes: one Zarr group whose shards are made true, one by one, by commit records. FORMAT.md is the contract."""

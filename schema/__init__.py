"""What Turnstone stores: tables, types, roles and row-level security, with nothing that acts on them."""

"""Run the catalog's migrations on the connection that `blocks._database` hands over, inside its transaction."""

from alembic import context

from blocks._schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

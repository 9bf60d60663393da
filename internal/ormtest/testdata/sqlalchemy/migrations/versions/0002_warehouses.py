"""a table of its own on the home shard, with rows"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    table = op.create_table(
        "warehouses",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
    )
    op.bulk_insert(table, [{"name": "north"}, {"name": "south"}])
    op.create_check_constraint("products_stock", "products", "stock >= 0")
    op.execute("UPDATE products SET stock = stock + 1")


def downgrade():
    op.drop_constraint("products_stock", "products")
    op.drop_table("warehouses")

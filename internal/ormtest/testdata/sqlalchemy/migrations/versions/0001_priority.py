"""orders get a priority"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.add_column("orders", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.create_index("orders_priority", "orders", ["customer_id", "priority"])
    op.alter_column("customers", "name", type_=sa.String(200), existing_type=sa.Text(), existing_nullable=False)


def downgrade():
    op.alter_column("customers", "name", type_=sa.Text(), existing_type=sa.String(200), existing_nullable=False)
    op.drop_index("orders_priority", "orders")
    op.drop_column("orders", "priority")

"""A view, in a migration of its own: refused.md, 8."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_later")]

    operations = [
        migrations.RunSQL("CREATE VIEW open_orders AS SELECT customer_id, remark FROM orders WHERE status = 'new'", "DROP VIEW open_orders"),
    ]

"""A view, and a table on the home shard whose index comes behind it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_later")]

    operations = [
        migrations.CreateModel(
            name="Shelf",
            fields=[("id", models.BigAutoField(primary_key=True, serialize=False)), ("code", models.SlugField())],
            options={"db_table": "shelves"},
        ),
        migrations.RunSQL("CREATE VIEW open_orders AS SELECT customer_id, remark FROM orders WHERE status = 'new'", "DROP VIEW open_orders"),
    ]

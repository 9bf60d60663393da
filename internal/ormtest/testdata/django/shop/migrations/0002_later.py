"""Columns come, go and change their names; rows are written; a table on the home shard."""

from django.db import migrations, models


def fill(apps, schema_editor):
    product = apps.get_model("shop", "Product")
    warehouse = apps.get_model("shop", "Warehouse")
    warehouse.objects.bulk_create(warehouse(name="at " + p.sku, sku=p.sku) for p in product.objects.order_by("id")[:3])
    product.objects.filter(sku="sku-1").update(stock=models.F("stock") + 1)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.AddField("Order", "priority", models.IntegerField(default=3)),
        migrations.RenameField("Order", "note", "remark"),
        migrations.AddIndex("Order", models.Index(fields=["customer", "priority"], name="orders_priority")),
        migrations.AlterField("Customer", "name", models.CharField(max_length=200, null=True)),
        migrations.AddConstraint("Order", models.CheckConstraint(check=models.Q(priority__gte=0), name="orders_priority_positive")),
        migrations.RenameField("Product", "name", "title"),
        migrations.CreateModel(
            name="Warehouse",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.TextField(unique=True)),
                ("sku", models.SlugField()),
            ],
            options={"db_table": "warehouses"},
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]

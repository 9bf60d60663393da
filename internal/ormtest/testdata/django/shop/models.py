"""The shop's model.

Django knows primary keys of one column only, so each table has its serial id, and
the tables that are placed by the customer are declared with per_shard_constraints.
What belongs to a customer is Owned: its statements get the customer. An item finds
its order by a ForeignObject, a foreign key of two columns: joins, related objects
and prefetches then have the customer too. Whether a product is still in use nobody
asks the items of all customers: its foreign keys are left to the database.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Customer(models.Model):
    email = models.EmailField(db_index=True)
    name = models.CharField(max_length=100)
    active = models.BooleanField(default=True)
    preferences = models.JSONField(default=dict)
    favourites = models.ManyToManyField("Product", through="Favourite")

    class Meta:
        db_table = "customers"


class Product(models.Model):
    sku = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.PositiveIntegerField(default=0)
    tags = ArrayField(models.TextField(), default=list)

    class Meta:
        db_table = "products"


class Owned(models.Model):
    """Rows of a customer. Saving and deleting an object name the customer."""

    customer = models.ForeignKey(Customer, models.CASCADE)

    class Meta:
        abstract = True

    def _do_update(self, base_qs, using, pk_val, values, update_fields, forced_update):
        values = [v for v in values if v[0].attname != "customer_id"]
        return super()._do_update(base_qs.filter(customer=self.customer_id), using, pk_val, values, update_fields, forced_update)

    def delete(self, *args, **kwargs):
        return type(self).objects.filter(customer=self.customer_id, pk=self.pk).delete()

    def reload(self):
        return type(self).objects.get(customer=self.customer_id, pk=self.pk)


class Order(Owned):
    class Status(models.TextChoices):
        NEW = "new"
        PAID = "paid"
        SENT = "sent"

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NEW)
    note = models.TextField(blank=True)
    placed = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "orders"
        constraints = [models.UniqueConstraint(fields=["customer", "id"], name="orders_customer_id")]
        indexes = [models.Index(fields=["customer", "status"], name="orders_status")]

    def delete(self, *args, **kwargs):
        self.items.all().delete()
        return super().delete(*args, **kwargs)


class OrderItem(Owned):
    order_number = models.BigIntegerField(db_column="order_id")
    # What Django's own cascade deletes it names by the id alone.
    order = models.ForeignObject(
        Order, models.DO_NOTHING, from_fields=["customer", "order_number"], to_fields=["customer", "id"], related_name="items"
    )
    product = models.ForeignKey(Product, models.DO_NOTHING)
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        db_table = "order_items"
        constraints = [models.CheckConstraint(check=models.Q(quantity__gt=0), name="order_items_quantity")]


class Favourite(Owned):
    product = models.ForeignKey(Product, models.DO_NOTHING)
    since = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "favourites"
        constraints = [models.UniqueConstraint(fields=["customer", "product"], name="favourites_once")]

"""A shop written with Django; how it brings in the key is said in shop/models.py."""

import os
from decimal import Decimal

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
django.setup()

from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Avg, Case, Count, Exists, F, Max, OuterRef, Prefetch, Q, Subquery, Sum, Value, When, Window
from django.db.models.functions import Coalesce, Concat, Rank, TruncYear, Upper

import transcript
from shop.models import Customer, Favourite, Order, OrderItem, Product

customers = []  # in the order of their making


def notes(customer):
    return list(Order.objects.filter(customer=customer).order_by("id").values_list("note", flat=True))


def schema():
    call_command("migrate", "shop", "0001", verbosity=0)
    with connection.cursor() as c:
        print(sorted(connection.introspection.table_names(c)))
        print(c.execute("SELECT app, name FROM django_migrations ORDER BY id"), c.fetchall())


def reflection():
    with connection.cursor() as c:
        for table in ("customers", "orders", "order_items", "products"):
            print([(d.name, d.null_ok) for d in connection.introspection.get_table_description(c, table)])
            print(table, connection.introspection.get_sequences(c, table), connection.introspection.get_relations(c, table))


def catalogue():
    Product.objects.bulk_create(Product(sku="sku-%d" % i, name="product %d" % i, price=Decimal(i) / 2, stock=100) for i in range(1, 11))
    product = Product.objects.get(sku="sku-3")
    product.price, product.tags = Decimal("9.99"), ["new", "it's"]
    product.save()
    product.refresh_from_db()
    print(product.price, product.tags)
    print(Product.objects.filter(price__lt=2).update(stock=F("stock") * 2))
    print(list(Product.objects.order_by("id").values_list("sku", "price", "stock")))
    print(Product.objects.aggregate(Count("id"), Sum("stock"), Avg("price")))
    print([Product.objects.get_or_create(sku=s, defaults=dict(name="n", price=1))[1] for s in ("sku-1", "sku-11", "sku-11")])
    print([Product.objects.update_or_create(sku=s, defaults=dict(name="u", price=1))[1] for s in ("sku-1", "sku-12")])
    Product.objects.bulk_create([Product(sku="sku-1", name="x", price=1), Product(sku="sku-13", name="x", price=1)], ignore_conflicts=True)
    with transcript.refused(IntegrityError):
        Product.objects.create(sku="sku-1", name="twice", price=1)
    print(Product.objects.filter(sku__in=["sku-11", "sku-12", "sku-13"]).delete())
    print(list(Product.objects.filter(tags__contains=["new"]).values_list("name", flat=True)))
    some = list(Product.objects.order_by("id")[:3])
    for p in some:
        p.stock += 1
    Product.objects.bulk_update(some, ["stock"])
    print(list(Product.objects.filter(Q(stock__gt=100) | Q(name__startswith="product 1")).order_by("-stock", "sku").values_list("sku", "stock")))


def people():
    for i in range(1, 7):
        customers.append(Customer.objects.create(email="c%d@example.org" % i, name="customer %d" % i, preferences={"n": i}))
        print(customers[-1].name, customers[-1].pk is not None)
    many = Customer.objects.bulk_create([Customer(email="m", name="many %d" % i) for i in range(20)])
    batches = Customer.objects.bulk_create([Customer(email="m", name="batch %d" % i) for i in range(20)], batch_size=7)
    customers.extend(many + batches)
    print(len({c.pk for c in customers}), [Customer.objects.get(pk=c.pk).name for c in customers[4:8]])


def places_orders():
    products = list(Product.objects.order_by("id"))
    for customer in customers[:6]:
        with transaction.atomic():
            for size in range(1, 5):
                order = Order.objects.create(customer=customer, note="order %d" % size)
                OrderItem.objects.bulk_create(OrderItem(order=order, product=p, quantity=size, price=p.price) for p in products[:size])
                order.items.create(customer=customer, product=products[9], quantity=1, price=1)
        print(notes(customer))
    # One transaction for two customers, and a reference table.
    with transaction.atomic():
        for customer in customers[:2]:
            Order(customer=customer, note="of two").save()
        Product.objects.filter(sku="sku-1").update(stock=F("stock") - 2)
        transaction.on_commit(lambda: print("committed"))
    customers[0].order_set.create(note="of a set")
    print(notes(customers[0]), notes(customers[1]), Product.objects.get(sku="sku-1").stock)


def reads():
    c = customers[1]
    mine = Order.objects.filter(customer=c)
    print([(o.note, o.customer.name) for o in mine.select_related("customer").order_by("id")])
    items = OrderItem.objects.filter(customer=c).select_related("order", "order__customer", "product").order_by("id")
    print([(i.order.note, i.order.customer.name, i.product.sku, i.quantity) for i in items])
    for o in mine.prefetch_related("items__product").order_by("id"):
        print(o.note, [i.product.sku for i in sorted(o.items.all(), key=lambda i: i.id)])
    c = Customer.objects.prefetch_related(Prefetch("order_set", Order.objects.order_by("-id"), "latest"), "latest__items").get(pk=c.pk)
    print([(o.note, len(o.items.all())) for o in c.latest])
    print([o.note for o in c.order_set.filter(items__product__sku="sku-2", items__customer=c).distinct().order_by("id")])
    print(mine.exists(), mine.count(), mine.order_by("id").first().note, mine.order_by("id").last().note, mine.latest("id").note, mine.filter(note="no").first())
    print(sorted(mine.in_bulk(field_name="id")) == sorted(o.pk for o in mine), list(mine.values("status").distinct()))
    print(list(mine.exclude(note__endswith="2").filter(Q(status="new") & ~Q(note="order 1")).order_by("id").values_list("note", "status")))
    print(sorted(mine.filter(note="order 1").values_list("note").union(mine.filter(note="order 2").values_list("note"))))
    print([o.items.count() for o in mine.order_by("id")], mine.get(note="order 3").items.aggregate(Sum("quantity")))
    print([o.note for o in mine.filter(placed__year__gte=2000, placed__isnull=False).order_by("id").iterator(chunk_size=2)])
    print([o.note for o in mine.only("note", "customer").order_by("id")], mine.filter(pk__in=[-1, -2]).count(), list(mine.none()))
    print("%s" % mine.order_by("id").explain()[:0], Customer.objects.filter(pk=c.pk, preferences__n=2).count())
    with transcript.refused(Order.DoesNotExist):
        mine.get(note="none")


def pages():
    mine = Order.objects.filter(customer=customers[0]).order_by("id")
    print([[o.note for o in mine[i:i + 2]] for i in (0, 2, 4)], mine[1].note)
    print([o.note for o in mine.filter(id__gt=mine[1].id)[:2]])


def aggregates():
    c = customers[2]
    items = OrderItem.objects.filter(customer=c)
    print(items.aggregate(total=Sum(F("quantity") * F("price")), n=Count("id"), orders=Count("order_number", distinct=True), top=Max("quantity")))
    print(list(items.values("product__sku").annotate(n=Sum("quantity")).filter(n__gt=2).order_by("product__sku")))
    print(list(Order.objects.filter(customer=c).annotate(n=Count("items"), q=Coalesce(Sum("items__quantity"), 0)).order_by("id").values_list("note", "n", "q")))
    top = OrderItem.objects.filter(customer=OuterRef("customer"), order_number=OuterRef("pk")).order_by("-quantity", "id").values("product__sku")[:1]
    large = OrderItem.objects.filter(customer=OuterRef("customer"), order_number=OuterRef("pk"), quantity__gt=2)
    mine = Order.objects.filter(customer=c).annotate(top=Subquery(top), large=Exists(large))
    print(list(mine.order_by("id").values_list("note", "top", "large")), mine.filter(large=True).count())
    print(list(items.annotate(rank=Window(Rank(), partition_by=[F("order_number")], order_by=F("id").desc())).order_by("id").values_list("rank", flat=True)))
    size = Case(When(quantity__gt=3, then=Value("large")), default=Value("small"))
    print(list(items.annotate(size=size).values("size").annotate(Count("id")).order_by("size")))
    print(Order.objects.filter(customer=c).annotate(y=TruncYear("placed")).values("y").distinct().count(), Order.objects.filter(customer=c).values(n=Upper("note")).order_by("n").first())


def updates():
    c = customers[0]
    c.name, c.preferences = "renamed", {"colour": "blue", "sizes": [1, 2]}
    c.save()
    c.refresh_from_db()
    print(c.name, c.preferences, Customer.objects.filter(pk=c.pk, preferences__colour="blue", preferences__sizes__contains=[1]).exists())
    order = Order.objects.filter(customer=c).order_by("id").first()
    order.status = Order.Status.PAID
    order.save()
    order.note = "saved"
    order.save(update_fields=["note"])
    order = order.reload()
    print(order.status, order.note)
    item = order.items.order_by("id").first()
    item.quantity = F("quantity") + 5
    item.save()
    print(item.reload().quantity)
    print(Order.objects.filter(customer=c, status="new").update(note=Concat("note", Value("!"))))
    several = list(Order.objects.filter(customer=c).order_by("id"))
    for o in several:
        o.status = "sent"
    Order.objects.filter(customer=c).bulk_update(several, ["status"])
    print(list(Order.objects.filter(customer=c).order_by("id").values_list("note", "status")))
    with transaction.atomic():
        for other in customers[10:20]:
            other.active = False
            other.save()
    print([Customer.objects.get(pk=other.pk).active for other in customers[9:21]])
    price = Product.objects.filter(pk=OuterRef("product")).values("price")
    print(OrderItem.objects.filter(customer=c).update(price=Subquery(price)))


def gets_or_creates():
    c = customers[3]
    print([Order.objects.get_or_create(customer=c, note="once")[1] for _ in range(2)])
    print([Order.objects.update_or_create(customer=c, note="once", defaults=dict(status=s))[0].status for s in ("paid", "sent")])
    print([Order.objects.update_or_create(customer=c, note=n, defaults=dict(status="paid"))[1] for n in ("twice", "twice")])
    Favourite.objects.bulk_create([Favourite(customer=c, product=p) for p in Product.objects.order_by("id")[:2]])
    Favourite.objects.bulk_create([Favourite(customer=c, product=p) for p in Product.objects.order_by("id")[:4]], ignore_conflicts=True)
    print(Favourite.objects.filter(customer=c).count(), notes(c))


def many_to_many():
    c = customers[4]
    p = list(Product.objects.order_by("id"))
    c.favourites.add(p[0], p[1])
    c.favourites.add(p[1], p[2])
    print([x.sku for x in c.favourites.order_by("id")])
    c.favourites.set([p[2], p[3]])
    print([x.sku for x in c.favourites.filter(price__lt=100).order_by("id")])
    c.favourites.remove(p[3])
    print(c.favourites.count(), [[x.sku for x in one.favourites.all()] for one in Customer.objects.filter(pk=c.pk).prefetch_related("favourites")])
    c.favourites.clear()
    print(c.favourites.exists())


def locks():
    with transaction.atomic():
        c = Customer.objects.select_for_update().get(pk=customers[3].pk)
        o = list(Order.objects.select_for_update(skip_locked=True, of=("self",)).select_related("customer").filter(customer=c).order_by("id"))
        p = Product.objects.select_for_update(no_key=True).get(sku="sku-1")
        print(c.name, [x.customer.name for x in o], p.sku)
    with transcript.refused(DatabaseError):
        list(Order.objects.select_for_update().filter(customer=c).values("status").annotate(Count("id")))


def transactions():
    a, b = customers[4], customers[5]
    try:
        with transaction.atomic():
            Order.objects.create(customer=a, note="never")
            Order.objects.create(customer=b, note="never")
            raise RuntimeError("no")
    except RuntimeError as e:
        print("rolled back:", e)
    with transaction.atomic():
        Order.objects.create(customer=a, note="kept")
        with transcript.refused(IntegrityError):
            with transaction.atomic():
                inner = Order.objects.create(customer=a, note="inner")
                OrderItem.objects.create(order=inner, product_id=1, quantity=0, price=1)
        with transaction.atomic():
            Order.objects.create(customer=b, note="of another customer")
        point = transaction.savepoint()
        Order.objects.create(customer=a, note="behind")
        Order.objects.create(customer=b, note="behind")
        transaction.savepoint_rollback(point)
    # Django's foreign keys are checked at COMMIT.
    for others in ([], [b]):
        with transcript.refused(IntegrityError):
            with transaction.atomic():
                order = Order.objects.create(customer=a, note="bad")
                OrderItem.objects.create(order=order, product_id=-1, quantity=1, price=1)
                for other in others:
                    Order.objects.create(customer=other, note="bad")
    print(notes(a), notes(b))
    with transaction.atomic(durable=True):
        print(Customer.objects.get(pk=a.pk).name)


def raw():
    c = customers[1]
    print([o.note for o in Order.objects.raw("SELECT * FROM orders WHERE customer_id = %s ORDER BY id", [c.pk])])
    with connection.cursor() as cursor:
        cursor.execute("SELECT o.note, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.id = %s ORDER BY o.id LIMIT 2", [c.pk])
        print(cursor.fetchall())
        cursor.execute("UPDATE orders SET note = upper(note) WHERE customer_id = %s", [c.pk])
        print(cursor.rowcount)
        cursor.executemany("INSERT INTO orders (customer_id, status, note, placed) VALUES (%s, 'new', %s, now())", [(x.pk, "raw") for x in customers[:3]])
    print([notes(x)[-1] for x in customers[:3]])


def deletes():
    c = customers[2]
    order = Order.objects.filter(customer=c).order_by("id").first()
    print(order.delete())
    print(Order.objects.filter(customer=c, note="order 2").order_by("id").first().items.filter(product=Product.objects.get(sku="sku-1")).delete())
    print(OrderItem.objects.filter(customer=c, quantity__lt=3).delete(), OrderItem.objects.filter(customer=c).count())
    Favourite.objects.create(customer=c, product=Product.objects.get(sku="sku-1"))
    pk = c.pk
    print(c.delete(), c.pk)
    print(notes(pk), Order.objects.filter(customer=customers[1]).count())


def single_tables():
    call_command("migrate", "auth", verbosity=0)
    call_command("migrate", "sessions", verbosity=0)
    user = User.objects.create_user("shop", "shop@example.org", "secret")
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="shop", codename__startswith="add"))
    print(user.has_perm("shop.add_order"), user.has_perm("shop.delete_order"), Permission.objects.count())
    s = SessionStore()
    s["user"] = user.pk
    s.save()
    print(SessionStore(s.session_key)["user"] == user.pk)
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(first_name="x")
        Order.objects.create(customer=customers[0], note="by " + user.username)
    print(notes(customers[0])[-1], User.objects.get().first_name, user.delete())


def migrations():
    call_command("migrate", "shop", verbosity=0)
    with connection.cursor() as c:
        c.execute("SELECT name FROM django_migrations WHERE app = 'shop' ORDER BY id")
        print(c.fetchall())
        c.execute("SELECT priority, remark FROM orders WHERE customer_id = %s ORDER BY id LIMIT 2", [customers[0].pk])
        print(c.fetchall())
        c.execute("SELECT name, title FROM warehouses JOIN products ON products.sku = warehouses.sku ORDER BY 1")
        print(c.fetchall())
    call_command("migrate", "shop", "0001", verbosity=0)
    print(notes(customers[0])[0], Product.objects.get(sku="sku-1").name)
    call_command("migrate", "shop", "zero", verbosity=0)
    with connection.cursor() as c:
        print([t for t in sorted(connection.introspection.table_names(c)) if not t.startswith(("auth", "django"))])


SECTIONS = [
    schema, reflection, catalogue, people, places_orders, reads, pages, aggregates, updates, gets_or_creates, many_to_many, locks, transactions,
    raw, deletes, single_tables, migrations,
]


def after_failure():
    connection.close()


if __name__ == "__main__":
    transcript.run(SECTIONS, after_failure)

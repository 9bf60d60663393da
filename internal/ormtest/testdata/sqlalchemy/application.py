"""A shop written with SQLAlchemy's ORM; the key is in the model (model.py)."""

from decimal import Decimal

from alembic import command
from alembic.config import Config
from sqlalchemy import and_, case, create_engine, delete, exists, func, insert, inspect, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, contains_eager, joinedload, selectinload, subqueryload
from sqlalchemy.orm.exc import StaleDataError

import transcript
from model import Base, Customer, Order, OrderItem, Product

ids = []  # of the customers, in the order of their making: they may have gaps

engine = create_engine("postgresql+psycopg2://", pool_size=2, max_overflow=0)


def session():
    return Session(engine, future=True)


def schema():
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # looks what is there, and makes nothing
    print(sorted(inspect(engine).get_table_names()))


def reflection():
    looked = inspect(engine)
    for table in ("customers", "order_items", "orders", "products"):
        print(table, [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in looked.get_columns(table)])
        print(" ", looked.get_pk_constraint(table)["constrained_columns"], looked.get_unique_constraints(table))
        print(" ", [(f["constrained_columns"], f["referred_table"], f["referred_columns"]) for f in looked.get_foreign_keys(table)])
        print(" ", sorted((i["name"], i["column_names"]) for i in looked.get_indexes(table)))


def catalogue():
    with session() as s:
        s.add_all([Product(sku="sku-%d" % i, name="product %d" % i, price=Decimal(i) / 2, stock=100) for i in range(1, 11)])
        s.commit()
        one = s.get(Product, 3)
        one.price = Decimal("9.99")
        one.tags = ["new", "it's"]
        s.commit()
        print(one.id, one.price, one.tags)
        s.execute(update(Product).where(Product.price < 2).values(stock=Product.stock * 2))
        s.commit()
        print(s.execute(select(Product.id, Product.sku, Product.price, Product.stock).order_by(Product.id)).all())
        print(s.execute(select(func.count(Product.id), func.sum(Product.stock))).one())
        statement = upsert(Product).values([dict(sku="sku-1", name="again", price=1), dict(sku="sku-11", name="eleven", price=2)])
        statement = statement.on_conflict_do_update(index_elements=["sku"], set_={"name": statement.excluded.name})
        print(sorted(s.execute(statement.returning(Product.sku, Product.name)).all()))
        s.commit()
        with transcript.refused(IntegrityError):
            s.add(Product(sku="sku-1", name="twice", price=1))
            s.commit()
        s.rollback()
        s.execute(delete(Product).where(Product.sku == "sku-11"))
        s.commit()
        print([p.name for p in s.scalars(select(Product).where(Product.tags.any("new")))])


def customers():
    with session() as s:
        for i in range(1, 7):
            customer = Customer(email="c%d@example.org" % i, name="customer %d" % i)
            s.add(customer)
            s.flush()
            ids.append(customer.id)
            print(customer.version, customer.active, customer.preferences)
        s.commit()
        many = [Customer(email="m%d@example.org" % i, name="many %d" % i) for i in range(1, 21)]
        s.add_all(many)
        s.commit()
        ids.extend(c.id for c in many)
        ids.append(s.execute(insert(Customer).values(name="core", email="core@example.org", version=1).returning(Customer.id)).scalar())
        print(len(ids), ids == sorted(set(ids)))
        s.execute(insert(Customer), [dict(name="batch %d" % i, email="b", version=1) for i in range(5)])
        s.bulk_save_objects([Customer(name="bulk %d" % i, email="b") for i in range(5)])
        s.bulk_insert_mappings(Customer, [dict(name="mapping %d" % i, email="b", version=1) for i in range(5)], return_defaults=True)
        s.commit()


def places_orders():
    with session() as s:
        for n in range(6):
            customer = s.get(Customer, ids[n])
            for size in range(1, 5):
                order = Order(note="order %d" % size)
                for line in range(1, size + 1):
                    product = s.get(Product, line)
                    order.items.append(OrderItem(line=line, product=product, quantity=size, price=product.price))
                customer.orders.append(order)
            s.commit()
            print(customer.name, [(o.status, len(o.items)) for o in customer.orders])
        # One transaction for two customers.
        two = [s.get(Customer, i) for i in ids[:2]]
        for customer in two:
            customer.orders.append(Order(note="of two"))
        s.commit()
        print([[o.note for o in c.orders] for c in two])


def reads():
    with session() as s:
        customer = s.scalars(select(Customer).where(Customer.id == ids[1])).one()
        print([(o.note, [(i.line, i.product.sku) for i in o.items]) for o in customer.orders])
    for load in (joinedload, selectinload, subqueryload):
        with session() as s:
            query = select(Customer).where(Customer.id == ids[2]).options(load(Customer.orders).options(load(Order.items).joinedload(OrderItem.product)))
            customer = s.scalars(query).unique().one()
            print(load.__name__, [(o.note, [(i.line, i.product.sku) for i in o.items]) for o in customer.orders])
    with session() as s:
        order = s.get(Order, (ids[2], s.scalar(select(func.min(Order.id)).where(Order.customer_id == ids[2]))), options=[joinedload(Order.customer), selectinload(Order.items)])
        print(order.customer.name, len(order.items))
        query = select(Order).join(Order.items).join(OrderItem.product).options(contains_eager(Order.items).contains_eager(OrderItem.product))
        query = query.where(Order.customer_id == ids[3], Product.sku == "sku-2").order_by(Order.id)
        print([(o.note, [i.product.name for i in o.items]) for o in s.scalars(query).unique()])
        print(s.execute(select(Customer.name, Order.note).join_from(Customer, Order).where(Customer.id == ids[4]).order_by(Order.id)).all())
        print(s.execute(select(Customer.name, Order.note).outerjoin(Customer.orders).where(Customer.id == ids[6])).all())
        both = select(Order.note).where(Order.customer_id == ids[0], Order.note.like("%1")).union_all(select(Order.note).where(Order.customer_id == ids[0], Order.note.like("%2")))
        print(sorted(s.scalars(both)))
        print(s.scalar(select(exists().where(Order.customer_id == ids[0], Order.status == "paid"))))
        print(s.scalars(select(Customer.name).where(Customer.id == ids[0], Customer.orders.any(Order.note == "order 2"))).all())
        print(s.scalars(select(Order.note).where(Order.customer_id == ids[0], Order.customer.has(Customer.name == "customer 1")).order_by(Order.id)).all())
        print(s.query(Order).filter_by(customer_id=ids[0]).count(), s.query(Order).filter_by(customer_id=ids[0]).order_by(Order.id).first().note)
        print(s.query(Order).filter_by(customer_id=ids[0], note="no").one_or_none())


def pages():
    with session() as s:
        query = select(Order).where(Order.customer_id == ids[0]).order_by(Order.id)
        for offset in (0, 2, 4):
            print([o.note for o in s.scalars(query.limit(2).offset(offset))])
        first = s.scalars(query.limit(1)).one()
        print([o.note for o in s.scalars(query.where(tuple_(Order.placed, Order.id) > (first.placed, first.id)).limit(3))])
        for page in s.execute(query.execution_options(yield_per=2)).scalars().partitions():
            print([o.note for o in page])


def aggregates():
    with session() as s:
        total = func.sum(OrderItem.quantity * OrderItem.price)
        query = select(Order.note, func.count(OrderItem.line), total).join(Order.items).where(Order.customer_id == ids[1])
        print(s.execute(query.group_by(Order.customer_id, Order.id, Order.note).having(total > 1).order_by(total.desc(), Order.note)).all())
        rank = func.rank().over(partition_by=OrderItem.order_id, order_by=OrderItem.line.desc())
        print(s.execute(select(OrderItem.line, rank).where(OrderItem.customer_id == ids[1]).order_by(OrderItem.order_id, OrderItem.line)).all())
        per = select(OrderItem.customer_id, OrderItem.order_id, total.label("total")).group_by(OrderItem.customer_id, OrderItem.order_id).subquery()
        query = select(Order.note, per.c.total).outerjoin(per, and_(per.c.customer_id == Order.customer_id, per.c.order_id == Order.id))
        print(s.execute(query.where(Order.customer_id == ids[1]).order_by(Order.id)).all())
        part = select(OrderItem).where(OrderItem.customer_id == ids[2]).cte("part")
        print(s.execute(select(Product.sku, func.sum(part.c.quantity)).join(part, part.c.product_id == Product.id).group_by(Product.sku).order_by(Product.sku)).all())
        print(s.execute(select(case((Order.status == "new", literal("open")), else_="closed"), func.count()).where(Order.customer_id == ids[2]).group_by(text("1"))).all())
        print(s.scalar(select(func.count()).select_from(select(Order).where(Order.customer_id == ids[2]).subquery())))
        items = select(func.count()).where(OrderItem.customer_id == Order.customer_id, OrderItem.order_id == Order.id).scalar_subquery()
        print(s.execute(select(Order.note, items).where(Order.customer_id == ids[2]).order_by(Order.id)).all())


def updates():
    with session() as s:
        customer = s.get(Customer, ids[0])
        customer.name = "renamed"
        customer.preferences = {"colour": "blue", "sizes": [1, 2]}
        customer.orders[0].status = "paid"
        customer.orders[0].items[0].quantity = OrderItem.quantity + 5
        s.commit()
        print(customer.version, customer.orders[0].status, customer.orders[0].items[0].quantity)
        print(s.scalars(select(Customer.email).where(Customer.id == ids[0], Customer.preferences["colour"].astext == "blue")).all())
        print(s.execute(update(Order).where(Order.customer_id == ids[0], Order.status == "new").values(note=Order.note + "!")).rowcount)
        print(sorted(s.execute(update(Order).where(Order.customer_id == ids[0]).values(status="sent").returning(Order.note)).all()))
        s.commit()
        other = session()
        stale = other.get(Customer, ids[0])
        customer.name = "first"
        s.commit()
        stale.name = "second"
        with transcript.refused(StaleDataError):
            other.commit()
        other.rollback()
        other.close()
        print(s.execute(update(OrderItem).where(OrderItem.customer_id == ids[0], OrderItem.product_id == Product.id, Product.sku == "sku-1").values(price=Product.price).execution_options(synchronize_session=False)).rowcount)
        s.commit()
        s.bulk_update_mappings(Order, [dict(customer_id=ids[0], id=o.id, note="bulk") for o in customer.orders])
        s.commit()
        s.expire_all()
        print([o.note for o in customer.orders])
        # Several customers in one flush.
        some = [s.get(Customer, i) for i in ids[10:20]]
        for c in some:
            c.active = False
        s.commit()
        print([(c.active, c.version) for c in some])


def upserts():
    with session() as s:
        statement = upsert(Customer).values(id=ids[0], email="x", name="upserted", version=1)
        statement = statement.on_conflict_do_update(index_elements=[Customer.id], set_=dict(name=statement.excluded.name, version=Customer.version + 1))
        print(s.execute(statement.returning(Customer.name, Customer.email)).all())
        print(s.execute(upsert(Customer).values(id=ids[1], email="x", name="x", version=1).on_conflict_do_nothing()).rowcount)
        s.merge(Customer(id=ids[2], email="merged", name="merged"))
        s.commit()
        print(s.get(Customer, ids[2]).email)


def locks():
    with session() as s:
        customer = s.scalars(select(Customer).where(Customer.id == ids[3]).with_for_update()).one()
        orders = s.scalars(select(Order).where(Order.customer_id == ids[3]).order_by(Order.id).with_for_update(skip_locked=True)).all()
        product = s.scalars(select(Product).where(Product.id == 1).with_for_update(read=True)).one()
        customer.name = "locked"
        print(customer.name, len(orders), product.sku)
        s.commit()
        s.refresh(customer, with_for_update={"nowait": True})
        print(customer.name)


def transactions():
    with session() as s:
        try:
            with s.begin():
                s.add(Order(customer_id=ids[4], note="never"))
                s.flush()
                raise RuntimeError("no")
        except RuntimeError as e:
            print("rolled back:", e)
        with s.begin():
            s.add(Order(customer_id=ids[4], note="kept"))
            try:
                with s.begin_nested():
                    s.add(Order(customer_id=ids[4], note="inner"))
                    s.add(OrderItem(customer_id=ids[4], order_id=-1, line=1, product_id=1, quantity=1, price=1))
            except IntegrityError as e:
                print("inner:", e.orig.pgcode)
            with s.begin_nested():
                s.add(Order(customer_id=ids[5], note="of another customer"))
        print([s.scalars(select(Order.note).where(Order.customer_id == i).order_by(Order.id)).all() for i in ids[4:6]])
    with session() as s:
        s.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        print(s.scalar(text("SHOW transaction_isolation")), s.get(Customer, ids[4]).name)
        s.commit()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        print(c.execute(text("SELECT name FROM customers WHERE id = :id"), dict(id=ids[5])).scalar())


def raw():
    with session() as s:
        print(s.execute(text("SELECT o.note FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.id = :id ORDER BY o.id"), dict(id=ids[1])).all())
        print(sorted(s.execute(text("UPDATE orders SET note = upper(note) WHERE customer_id = :id RETURNING note"), dict(id=ids[1])).all()))
        s.commit()
        print(s.scalars(select(Order).from_statement(text("SELECT * FROM orders WHERE customer_id = :id ORDER BY id").bindparams(id=ids[1]))).first().note)


def deletes():
    with session() as s:
        customer = s.get(Customer, ids[1])
        customer.orders.pop()
        s.commit()
        print(len(customer.orders))
        s.delete(customer)
        s.commit()
        print(s.get(Customer, ids[1]), s.scalar(select(func.count()).where(OrderItem.customer_id == ids[1])))
        s.execute(delete(OrderItem).where(OrderItem.customer_id == ids[2], OrderItem.quantity > 2))
        print(s.execute(delete(Customer).where(Customer.id == ids[6]).returning(Customer.name)).all())
        s.commit()
        print(s.scalar(select(func.count()).where(OrderItem.customer_id == ids[2])))
        with transcript.refused(IntegrityError):
            s.execute(delete(Customer).where(Customer.id == ids[2]))
        s.rollback()


def migrations():
    config = Config()
    config.set_main_option("script_location", "migrations")
    config.attributes["metadata"] = Base.metadata
    for step in (lambda: command.upgrade(config, "head"), lambda: command.downgrade(config, "-1"), lambda: command.upgrade(config, "+1")):
        with engine.begin() as c:
            config.attributes["connection"] = c
            step()
        with engine.connect() as c:
            print(c.execute(text("SELECT version_num FROM alembic_version")).all(), sorted(inspect(c).get_table_names()))
            print(c.execute(text("SELECT name, stock FROM products ORDER BY id LIMIT 3")).all())
    with engine.connect() as c:
        print(c.execute(text("SELECT id, name FROM warehouses ORDER BY id")).all())
        print(c.execute(text("SELECT priority, count(*) FROM orders WHERE customer_id = :id GROUP BY 1"), dict(id=ids[0])).all())


def ends():
    Base.metadata.drop_all(engine)
    print(sorted(inspect(engine).get_table_names()))


SECTIONS = [
    schema, reflection, catalogue, customers, places_orders, reads, pages, aggregates, updates, upserts, locks, transactions, raw, deletes,
    migrations, ends,
]

if __name__ == "__main__":
    transcript.run(SECTIONS)

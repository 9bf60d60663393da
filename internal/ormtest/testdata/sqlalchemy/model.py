"""The shop's model in SQLAlchemy's declarative form.

SQLAlchemy has composite keys, so the customer is the first column of the
primary key of what belongs to a customer, and of the foreign keys to it. Every
statement that it makes for such an object then has the key: loading, lazy and
eager, UPDATE, DELETE, cascades.
"""

from sqlalchemy import (
    BigInteger, Boolean, Column, DateTime, Enum, ForeignKey, ForeignKeyConstraint, Identity, Index, Integer, Numeric, Text, func, text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import declarative_base, relationship

Base = declarative_base()

STATUSES = ("new", "paid", "sent")


class Customer(Base):
    __tablename__ = "customers"
    id = Column(BigInteger, primary_key=True)
    email = Column(Text, nullable=False)
    name = Column(Text, nullable=False)
    active = Column(Boolean, nullable=False, server_default=text("true"))
    preferences = Column(JSONB, nullable=False, server_default=text("'{}'"))
    version = Column(Integer, nullable=False)
    orders = relationship("Order", back_populates="customer", cascade="all, delete-orphan", order_by="Order.id")
    __mapper_args__ = {"version_id_col": version}


class Product(Base):
    __tablename__ = "products"
    id = Column(Integer, primary_key=True)
    sku = Column(Text, nullable=False, unique=True)
    name = Column(Text, nullable=False)
    price = Column(Numeric(10, 2), nullable=False)
    stock = Column(Integer, nullable=False, server_default=text("0"))
    tags = Column(ARRAY(Text), nullable=False, server_default=text("'{}'"))


class Order(Base):
    __tablename__ = "orders"
    customer_id = Column(ForeignKey("customers.id"), primary_key=True)
    id = Column(BigInteger, Identity(), primary_key=True)
    status = Column(Enum(*STATUSES, name="order_status"), nullable=False, server_default="new")
    note = Column(Text)
    placed = Column(DateTime(timezone=True), nullable=False, server_default=func.now())
    customer = relationship("Customer", back_populates="orders")
    items = relationship("OrderItem", back_populates="order", cascade="all, delete-orphan", order_by="OrderItem.line")
    __table_args__ = (Index("orders_status", "customer_id", "status"),)


class OrderItem(Base):
    __tablename__ = "order_items"
    customer_id = Column(BigInteger, primary_key=True)
    order_id = Column(BigInteger, primary_key=True)
    line = Column(Integer, primary_key=True, autoincrement=False)
    product_id = Column(ForeignKey("products.id"), nullable=False)
    quantity = Column(Integer, nullable=False)
    price = Column(Numeric(10, 2), nullable=False)
    order = relationship("Order", back_populates="items")
    product = relationship("Product")
    __table_args__ = (ForeignKeyConstraint(["customer_id", "order_id"], ["orders.customer_id", "orders.id"]),)

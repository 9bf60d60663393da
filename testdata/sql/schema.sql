-- The order-processing schema: what the demo shows and the tests ask.
-- Made so that it can be sharded by customer without a change: every table
-- that belongs to a customer has customer_id in its primary key and in its
-- foreign keys; products is the same everywhere.

CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'delivered', 'cancelled');

CREATE TABLE customers (
    id         bigint PRIMARY KEY,
    name       text NOT NULL,
    email      text NOT NULL,
    country    char(2) NOT NULL,
    credit     numeric(12, 2) NOT NULL DEFAULT 0 CHECK (credit >= 0),
    attributes jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE products (
    id          integer PRIMARY KEY,
    sku         text NOT NULL UNIQUE,
    name        text NOT NULL,
    category    text NOT NULL,
    price       numeric(10, 2) NOT NULL CHECK (price > 0),
    weight_gram integer,
    tags        text[] NOT NULL DEFAULT '{}'
);

CREATE TABLE orders (
    customer_id bigint NOT NULL REFERENCES customers (id),
    id          bigint NOT NULL,
    status      order_status NOT NULL DEFAULT 'new',
    placed_at   timestamptz NOT NULL DEFAULT now(),
    shipped_on  date,
    note        text,
    PRIMARY KEY (customer_id, id)
);

CREATE TABLE order_items (
    customer_id bigint NOT NULL,
    order_id    bigint NOT NULL,
    line        smallint NOT NULL CHECK (line > 0),
    product_id  integer NOT NULL REFERENCES products (id),
    quantity    integer NOT NULL CHECK (quantity > 0),
    unit_price  numeric(10, 2) NOT NULL,
    discount    double precision NOT NULL DEFAULT 0 CHECK (discount >= 0 AND discount < 1),
    PRIMARY KEY (customer_id, order_id, line),
    FOREIGN KEY (customer_id, order_id) REFERENCES orders (customer_id, id) ON DELETE CASCADE
);

CREATE INDEX customers_email ON customers (lower(email));
CREATE INDEX customers_country ON customers (country);
CREATE INDEX products_category ON products (category, price);
CREATE INDEX orders_placed_at ON orders (placed_at);
CREATE INDEX orders_open ON orders (customer_id) WHERE status IN ('new', 'paid');
CREATE INDEX order_items_product ON order_items (product_id);

-- One row per order with its sum.
CREATE VIEW order_totals AS
SELECT o.customer_id, o.id AS order_id, o.status, o.placed_at,
       count(i.line) AS lines,
       coalesce(sum(round(i.quantity * i.unit_price * (1 - i.discount)::numeric, 2)), 0) AS total
FROM orders o
LEFT JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id
GROUP BY o.customer_id, o.id;

-- What each customer has bought; cancelled orders do not count.
CREATE VIEW customer_revenue AS
SELECT c.id AS customer_id, c.name, c.country,
       count(t.order_id) AS orders,
       coalesce(sum(t.total), 0) AS revenue
FROM customers c
LEFT JOIN order_totals t ON t.customer_id = c.id AND t.status <> 'cancelled'
GROUP BY c.id;

-- The sum of a customer's orders from a day on. STABLE: it only reads.
CREATE FUNCTION spent_since(customer bigint, since date) RETURNS numeric
LANGUAGE sql STABLE
AS $$
    SELECT coalesce(sum(total), 0) FROM order_totals
    WHERE customer_id = customer AND status <> 'cancelled' AND placed_at >= since
$$;

-- Puts an order with one line in place and returns its number. VOLATILE: it
-- writes, so a SELECT that calls it is no read.
CREATE FUNCTION place_order(customer bigint, product integer, pieces integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    number bigint;
BEGIN
    SELECT coalesce(max(id), 0) + 1 INTO number FROM orders WHERE customer_id = customer;
    INSERT INTO orders (customer_id, id) VALUES (customer, number);
    INSERT INTO order_items (customer_id, order_id, line, product_id, quantity, unit_price)
    SELECT customer, number, 1, id, pieces, price FROM products WHERE id = product;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'product % does not exist', product USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN number;
END
$$;

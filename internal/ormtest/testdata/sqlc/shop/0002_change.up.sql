ALTER TABLE orders ADD COLUMN priority integer NOT NULL DEFAULT 1, ALTER COLUMN note SET DEFAULT '';
ALTER TABLE customers ADD CONSTRAINT customers_email_given CHECK (email <> '') NOT VALID;
CREATE VIEW open_orders AS SELECT customer_id, id, note FROM orders WHERE status <> 'sent';
ALTER TABLE customers VALIDATE CONSTRAINT customers_email_given;
UPDATE products SET stock = stock + 1;
CREATE TABLE settings (name text PRIMARY KEY, value jsonb);
INSERT INTO settings VALUES ('currency', '"EUR"'), ('open', 'true');

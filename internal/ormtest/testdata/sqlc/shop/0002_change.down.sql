DROP VIEW open_orders;
DROP TABLE settings;
ALTER TABLE customers DROP CONSTRAINT customers_email_given;
ALTER TABLE orders DROP COLUMN priority, ALTER COLUMN note DROP DEFAULT;

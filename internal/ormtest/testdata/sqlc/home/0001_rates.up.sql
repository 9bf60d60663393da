CREATE TABLE rates (currency char(3) PRIMARY KEY, rate numeric NOT NULL);
INSERT INTO rates VALUES ('EUR', 1), ('CHF', 0.95);

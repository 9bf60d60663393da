package main

import "testing"

// TestPlacedFunctions calls functions where their arguments say.
func TestPlacedFunctions(t *testing.T) {
	s := startShards(t, 2, "    functions:\n      spent: {argument: 1, table: orders}\n      rename: {argument: 2, table: customers}\n")
	c := s.connectLoaded()
	must(t, c, "INSERT INTO customers SELECT 1, 'x'")
	for i := 2; i < 20; i++ {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
		must(t, c, "INSERT INTO orders VALUES (1, $1), (2, $1)", i)
	}
	must(t, c, "CREATE FUNCTION spent(who bigint) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM orders WHERE customer_id = who'")
	must(t, c, "CREATE FUNCTION rename(to_name text, who bigint) RETURNS text LANGUAGE sql AS 'UPDATE customers SET name = to_name WHERE id = who RETURNING name'")
	must(t, c, "CREATE FUNCTION other(who bigint) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM orders WHERE customer_id = who'")
	for i := 2; i < 20; i++ {
		if got := one(t, c, "SELECT spent($1)", i); got != "2" {
			t.Errorf("spent(%d) is %s", i, got)
		}
		if got := one(t, c, "SELECT * FROM rename('y', $1)", i); got != "y" {
			t.Errorf("renamed to %s", got)
		}
		if got := one(t, c, "SELECT name FROM customers WHERE id = $1", i); got != "y" {
			t.Errorf("customer %d is %s", i, got)
		}
	}
	fails(t, c, "SELECT other(3)", "0A000")
	fails(t, c, "SELECT spent(id) FROM customers WHERE id = 3", "0A000")
}

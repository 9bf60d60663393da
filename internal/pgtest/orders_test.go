package pgtest_test

import (
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// TestOrders freezes the rows: other tests compare with figures from them.
func TestOrders(t *testing.T) {
	db := pgtest.Shared(t)
	db.LoadOrders()
	for _, test := range []struct{ query, want string }{
		{"SELECT count(*) FROM customers", "500"},
		{"SELECT count(*) FROM products", "120"},
		{"SELECT count(*) FROM orders", "2250"},
		{"SELECT count(*) FROM order_items", "5320"},
		{"SELECT sum(revenue) FROM customer_revenue", "3386390.07"},
		{"SELECT count(*) FROM order_totals WHERE lines = 0", "90"},
		{"SELECT spent_since(3, '2024-06-01')", "11827.80"},
		{"SELECT md5(string_agg(t::text, E'\\n' ORDER BY t.customer_id, t.order_id)) FROM order_totals t", "d2b9f8af6b07f855447a5a4ab8cb2fbc"},
		{"SELECT count(DISTINCT status) FROM orders", "5"},
		{"SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", "app"},
		{"SELECT place_order(1, 2, 3)", "4"},
	} {
		if got := db.Value(test.query); got != test.want {
			t.Errorf("%s: %s, want %s", test.query, got, test.want)
		}
	}
	// Sharding by customer needs the key in every unique index of its tables.
	rows := db.Rows(`SELECT i.indrelid::regclass || ' ' || i.indexrelid::regclass
		FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'customer_id'
		WHERE i.indisunique AND NOT a.attnum = ANY (i.indkey)`)
	if len(rows) != 0 {
		t.Errorf("unique indexes without customer_id:\n%s", strings.Join(pgtest.Lines(rows), "\n"))
	}
}

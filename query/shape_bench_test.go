package query

import "testing"

// BenchmarkShapes compares what a text costs with and without its shape.
func BenchmarkShapes(b *testing.B) {
	texts := []struct{ name, sql string }{
		{"point", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711"},
		{"insert", "INSERT INTO t (a, b, c, d) VALUES (1, 'x', now(), 2.5), (2, 'y', now(), 3.5), (3, 'z', now(), 4.5) RETURNING a"},
		{"join", "SELECT o.id, sum(i.price * i.n) FROM orders o JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id " +
			"WHERE o.customer_id = $1 AND o.state IN ('a', 'b') GROUP BY o.id HAVING sum(i.n) > 3 ORDER BY 2 DESC LIMIT 10"},
	}
	for _, text := range texts {
		b.Run(text.name+"/analyze", func(b *testing.B) {
			var n Normal
			b.ReportAllocs()
			for b.Loop() {
				n.Analyze(text.sql, Options{})
			}
		})
		b.Run(text.name+"/shapes", func(b *testing.B) {
			var n Normal
			b.ReportAllocs()
			for b.Loop() {
				n.AnalyzeShapes(text.sql, Options{})
			}
		})
	}
}

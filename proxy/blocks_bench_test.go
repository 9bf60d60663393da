package proxy

import (
	"testing"

	"shardproxy/query"
)

// BenchmarkBlockOf is what a text pays while a statement is blocked.
func BenchmarkBlockOf(b *testing.B) {
	s := &session{db: &Database{}}
	if err := s.db.Block(Block{Fingerprint: query.FingerprintOf([]byte("SELECT 1"), query.Options{}).Hash}); err != nil {
		b.Fatal(err)
	}
	text := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 4711")
	b.ReportAllocs()
	for b.Loop() {
		if s.blockOf(*s.db.blocks.byPrint.Load(), text) != nil {
			b.Fatal("blocked")
		}
	}
}

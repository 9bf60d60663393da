package pool_test

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"shardproxy/pool"
)

// BenchmarkStream reads rows of about 80 bytes off a real server: the time is mostly the server's, the
// CPU that of reading.
func BenchmarkStream(b *testing.B) {
	const rows = 300000
	s := sharedBench(b, policy(1)).take()
	defer s.Release(pool.Clean)
	if err := s.Socket().Detach(); err != nil {
		b.Fatal(err)
	}
	cpu := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before, blocks := cpu(), 0
	for b.Loop() {
		st := stream(b, s, "SELECT g, repeat('n', 20), 1234.56, repeat('c', 20), g FROM generate_series(1, 300000) g", pool.StreamOptions{})
		var err error
		for ; err == nil; blocks++ {
			_, err = st.Next()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		if _, err := st.End(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/rows, "cpu-ns/row")
	b.ReportMetric(rows/(float64(blocks)/float64(b.N)), "rows/block")
}

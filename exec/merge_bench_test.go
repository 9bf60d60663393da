package exec_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"testing"

	"shardproxy/exec"
)

// repeatedSource gives the same blocks over and over without a copy.
type repeatedSource struct {
	blocks [][]byte
	at     int
	ready  chan struct{}
}

func (s *repeatedSource) Ready() <-chan struct{} { return s.ready }
func (s *repeatedSource) Next() ([]byte, error) {
	if s.at == len(s.blocks) {
		return nil, io.EOF
	}
	s.at++
	return s.blocks[s.at-1], nil
}

// BenchmarkMerge merges two sources of 100,000 rows each, of five columns in about 100 bytes.
func BenchmarkMerge(b *testing.B) {
	const rows = 100000
	for _, key := range []string{"none", "int8", "text", "numeric"} {
		o := exec.MergeOptions{Limit: -1}
		switch key {
		case "int8":
			o.Keys, o.Hidden = []exec.Order{{Type: 20}}, 1
		case "text":
			o.Keys, o.Hidden = []exec.Order{{Type: 25, Bytewise: true}}, 1
		case "numeric":
			o.Keys, o.Hidden = []exec.Order{{Type: 1700}}, 1
		}
		sources := make([]*repeatedSource, 2)
		for i := range sources {
			s := &repeatedSource{ready: make(chan struct{})}
			close(s.ready)
			var block []byte
			for n := range rows {
				v := 2*n + i
				value := int8Value(int64(v))
				switch key {
				case "text":
					value = fmt.Appendf(nil, "customer#%09d", v)
				case "numeric":
					value = []byte{0, 3, 0, 1, 0, 0, 0, 2, byte(v / 10000 >> 8), byte(v / 10000), byte(v % 10000 >> 8), byte(v % 10000), 0, 10}
				}
				block = append(block, row(int8Value(int64(v)), bytes.Repeat([]byte("n"), 20), []byte("1234.56"), bytes.Repeat([]byte("c"), 20), value)...)
				if len(block) > 64000 || n == rows-1 {
					s.blocks, block = append(s.blocks, slices.Clip(block)), nil
				}
			}
			sources[i] = s
		}
		b.Run(key, func(b *testing.B) {
			size := 0
			for b.Loop() {
				sources[0].at, sources[1].at, size = 0, 0, 0
				n, err := exec.Merge([]exec.Source{sources[0], sources[1]}, o, func(frames []byte) error { size += len(frames); return nil }, nil)
				if err != nil || n != 2*rows {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*rows), "ns/row")
			b.ReportMetric(float64(size)/(2*rows), "bytes/row")
		})
	}
}

package exec_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"shardproxy/exec"
)

// benchData returns about 1 MiB of rows like those of order items, keyed by the first column.
func benchData(format string) (data []byte, names []string) {
	names = []string{"customer_id", "order_id", "product", "quantity", "price", "placed", "note"}
	var b bytes.Buffer
	if format == "binary" {
		b.WriteString("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	}
	for i := 0; b.Len() < 1<<20; i++ {
		fields := []any{i * 7919 % 100003, i, "product " + fmt.Sprint(i%120), i % 9, "129.95", "2024-06-01 10:20:30+00", "please leave it with the neighbour"}
		if format == "binary" {
			b.Write([]byte{0, byte(len(fields))})
		}
		for k, f := range fields {
			text := fmt.Sprint(f)
			switch {
			case format == "binary":
				_ = binary.Write(&b, binary.BigEndian, int32(len(text)))
			case k > 0 && format == "text":
				b.WriteByte('\t')
			case k > 0:
				b.WriteByte(',')
			}
			switch {
			case format == "text nulls" && k > 3 || format == "text" && k == 9:
				text = `\N`
			case format == "csv quoted":
				text = `"` + text + `"`
			}
			b.WriteString(text)
		}
		if format != "binary" {
			b.WriteByte('\n')
		}
	}
	return b.Bytes(), names
}

// BenchmarkCopySplit reads, places by a hash of the key and writes to two shards, from messages of 8 KiB.
func BenchmarkCopySplit(b *testing.B) {
	for _, test := range []struct{ name, options string }{
		{"text", "FORMAT text"}, {"text nulls", "FORMAT text, DELIMITER ','"}, {"csv", "FORMAT csv"},
		{"csv quoted", "FORMAT csv"}, {"binary", "FORMAT binary"},
	} {
		for _, piece := range []int{8 << 10, 0} {
			name := test.name + "/8KiB"
			if piece == 0 {
				name = test.name + "/rows"
			}
			b.Run(name, func(b *testing.B) { benchSplit(b, test.name, test.options, piece) })
		}
	}
}

func benchSplit(b *testing.B, format, options string, piece int) {
	data, names := benchData(format)
	d := dialectOf(b, "COPY t FROM STDIN ("+options+")", session)
	var messages [][]byte
	for rest := data; len(rest) > 0; {
		n := piece
		if n == 0 { // a message for each row, as many drivers send
			if n = bytes.IndexByte(rest, '\n') + 1; format == "binary" {
				n = 140
			}
		}
		n = min(n, len(rest))
		messages = append(messages, rest[:n])
		rest = rest[n:]
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.ResetTimer()
	rows := 0
	for b.Loop() {
		r := exec.NewCopyReader(exec.CopyReaderOptions{Dialect: d, Relation: "t", Columns: names, Wanted: []int{0}})
		writers := [2]*exec.CopyWriter{}
		for i := range writers {
			writers[i] = exec.NewCopyWriter(io.Discard, d, exec.NewCopyLines("t"))
		}
		for _, m := range messages {
			r.Feed(m)
			for {
				row, err := r.Next()
				if err != nil {
					b.Fatal(err)
				}
				if row == nil {
					break
				}
				if row.Fault != nil {
					b.Fatal(row.Fault)
				}
				h := uint32(2166136261)
				for _, c := range row.Values[0].Bytes {
					h = (h ^ uint32(c)) * 16777619
				}
				if err := writers[h>>31].Write(row); err != nil {
					b.Fatal(err)
				}
				rows++
			}
		}
	}
	b.ReportMetric(float64(rows)/float64(b.N), "rows/op")
}

package exec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"shardproxy/exec"
	"shardproxy/query"
	"shardproxy/wire"
)

// session is that of the tests' servers.
var session = exec.CopySession{ClientEncoding: "UTF8", ServerEncoding: "UTF8", Version: 15}

// dialectOf reads the dialect of a statement.
func dialectOf(t testing.TB, sql string, s exec.CopySession) *exec.CopyDialect {
	t.Helper()
	d, err := tryDialect(sql, s)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return d
}

func tryDialect(sql string, s exec.CopySession) (*exec.CopyDialect, error) {
	st, shapes := query.AnalyzeShapes(sql, query.Options{})
	if st.Opaque || len(shapes) != 1 || shapes[0].Copy == nil {
		return nil, fmt.Errorf("%s is no COPY", sql)
	}
	return exec.ReadCopyDialect(shapes[0].Copy, s)
}

// kept is a row that outlives the reader's next call.
type kept struct {
	exec.CopyRow
	values []exec.CopyValue
}

// cut reads all rows of data that come in pieces of the given sizes, then the rest at once.
func cut(o exec.CopyReaderOptions, data []byte, sizes ...int) (rows []kept, err *wire.Error) {
	r := exec.NewCopyReader(o)
	err = each(r, data, sizes, func(row *exec.CopyRow) {
		k := kept{CopyRow: *row}
		k.Bytes = bytes.Clone(row.Bytes)
		for _, v := range row.Values {
			v.Bytes = bytes.Clone(v.Bytes)
			k.values = append(k.values, v)
		}
		k.Values = k.values
		rows = append(rows, k)
	})
	return rows, err
}

// each feeds a reader and calls f for each row, up to one with a fault.
func each(r *exec.CopyReader, data []byte, sizes []int, f func(*exec.CopyRow)) *wire.Error {
	drain := func() (stop bool, err *wire.Error) {
		for {
			row, err := r.Next()
			var we *wire.Error
			if errors.As(err, &we) {
				return true, we
			}
			if row == nil {
				return false, nil
			}
			if f(row); row.Fault != nil {
				return true, nil
			}
		}
	}
	for len(data) > 0 {
		n := len(data)
		if len(sizes) > 0 {
			n, sizes = min(max(sizes[0], 1), n), sizes[1:]
		}
		piece := bytes.Clone(data[:n])
		data = data[n:]
		r.Feed(piece)
		if stop, err := drain(); stop {
			return err
		}
		for i := range piece { // the reader must not look at it any more
			piece[i] = 0xaa
		}
	}
	r.Finish()
	_, err := drain()
	return err
}

// pieces returns random sizes for data.
func pieces(rng *rand.Rand, n int) (sizes []int) {
	most := []int{1, 3, 20, 200}[rng.IntN(4)]
	for n > 0 {
		s := 1 + rng.IntN(most)
		sizes = append(sizes, s)
		n -= s
	}
	return sizes
}

// unframe returns the data of CopyData frames that end with CopyDone.
func unframe(t testing.TB, frames []byte) (data []byte) {
	t.Helper()
	for len(frames) > 5 {
		size := int(binary.BigEndian.Uint32(frames[1:]))
		if frames[0] != wire.MsgCopyData || size+1 > exec.FrameBytes {
			t.Fatalf("frame %q of %d bytes", frames[0], size)
		}
		data = append(data, frames[5:1+size]...)
		frames = frames[1+size:]
	}
	if !bytes.Equal(frames, []byte("c\x00\x00\x00\x04")) {
		t.Fatalf("the end is %q", frames)
	}
	return data
}

package exec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/wire"
)

var _ exec.Source = (*pool.Stream)(nil)

// fakeSource gives blocks, and spoils each when the next is asked for.
type fakeSource struct {
	blocks [][]byte
	err    error
	ready  chan struct{}
	last   []byte
}

func newFakeSource(blocks ...[]byte) *fakeSource {
	s := &fakeSource{blocks: blocks, err: io.EOF, ready: make(chan struct{})}
	close(s.ready)
	return s
}

func (s *fakeSource) Ready() <-chan struct{} { return s.ready }

func (s *fakeSource) Next() ([]byte, error) {
	for i := range s.last {
		s.last[i] = 0xee
	}
	s.last = nil
	if len(s.blocks) == 0 {
		return nil, s.err
	}
	s.last = bytes.Clone(s.blocks[0])
	s.blocks = s.blocks[1:]
	return s.last, nil
}

// row makes a DataRow; a nil field is NULL.
func row(fields ...[]byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(fields)))
	for _, f := range fields {
		if f == nil {
			body = binary.BigEndian.AppendUint32(body, 0xffffffff)
			continue
		}
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(f))), f...)
	}
	return wire.AppendFrame(nil, wire.MsgDataRow, body)
}

func int8Value(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// split cuts frames into blocks at random.
func split(r *rand.Rand, frames [][]byte) (blocks [][]byte) {
	for len(frames) > 0 {
		n := 1 + r.IntN(min(len(frames), 20))
		blocks = append(blocks, slices.Concat(frames[:n]...))
		frames = frames[n:]
	}
	return blocks
}

// sunk collects what a merge gives, each batch of which must be whole rows.
type sunk struct {
	t    *testing.T
	rows []string
}

func (s *sunk) sink(frames []byte) error {
	if len(frames) == 0 {
		s.t.Error("an empty batch")
	}
	for len(frames) > 0 {
		n := 1 + int(binary.BigEndian.Uint32(frames[1:]))
		if frames[0] != wire.MsgDataRow {
			s.t.Fatalf("a message %q among the rows", frames[0])
		}
		s.rows = append(s.rows, string(frames[:n]))
		frames = frames[n:]
	}
	return nil
}

// TestMergeLikeSort merges random rows and compares with sorting all of them.
func TestMergeLikeSort(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 150 {
		testMerge(t, r)
	}
}

type mergedRow struct{ frame, visible []byte }

func testMerge(t *testing.T, r *rand.Rand) {
	o := exec.MergeOptions{Limit: -1}
	for range r.IntN(4) {
		o.Keys = append(o.Keys, exec.Order{Type: []uint32{20, 25}[r.IntN(2)], Bytewise: true, Descending: r.IntN(2) == 0, NullsFirst: r.IntN(2) == 0})
	}
	o.Hidden = len(o.Keys) + r.IntN(2)
	if r.IntN(3) == 0 {
		o.Offset = int64(r.IntN(60))
	}
	if r.IntN(3) == 0 {
		o.Limit = int64(r.IntN(60))
	}
	k := 1 + r.IntN(12)
	var sources []exec.Source
	var all []mergedRow
	others := 0
	for i := range k {
		var rows [][][]byte
		for n := range r.IntN(50) {
			fields := [][]byte{fmt.Appendf(nil, "%d/%d", i, n), make([]byte, r.IntN(40))}
			if r.IntN(30) == 0 {
				fields[1] = make([]byte, 10000+r.IntN(90000))
			}
			for range o.Hidden - len(o.Keys) {
				fields = append(fields, nil)
			}
			for _, key := range o.Keys {
				v := int8Value(int64(r.IntN(5) - 2))
				if key.Type == 25 {
					v = bytes.Repeat([]byte("ab"), 5)[:r.IntN(10)]
				}
				if r.IntN(6) == 0 {
					v = nil
				}
				fields = append(fields, v)
			}
			rows = append(rows, fields)
		}
		slices.SortStableFunc(rows, func(a, b [][]byte) int { return compareRows(t, o.Keys, a, b) })
		frames := [][]byte{wire.AppendEmpty(nil, wire.MsgRowDescription)}
		for _, fields := range rows {
			frames = append(frames, row(fields...))
			all = append(all, mergedRow{row(fields...), row(fields[:len(fields)-o.Hidden]...)})
		}
		frames = append(frames, wire.AppendCommandComplete(nil, "SELECT"))
		sources = append(sources, newFakeSource(split(r, frames)...))
	}
	got := sunk{t: t}
	rows, err := exec.Merge(sources, o, got.sink, func(i int, frame []byte) {
		if frame[0] != wire.MsgRowDescription && frame[0] != wire.MsgCommandComplete || len(frame) != 1+int(binary.BigEndian.Uint32(frame[1:])) {
			t.Fatalf("other(%d, %q)", i, frame)
		}
		others++
	})
	if err != nil || int(rows) != len(got.rows) {
		t.Fatalf("%d rows said, %d given: %v", rows, len(got.rows), err)
	}
	if want := max(0, len(all)-int(o.Offset)); o.Limit < 0 && len(got.rows) != want || o.Limit >= 0 && len(got.rows) != min(want, int(o.Limit)) {
		t.Fatalf("%d rows of %d with %+v", len(got.rows), len(all), o)
	}
	if o.Limit < 0 && others != 2*k {
		t.Fatalf("%d other messages of %d sources", others, k)
	}
	if len(o.Keys) > 0 { // rows of equal keys: the lower source first, within one as they came
		slices.SortStableFunc(all, func(a, b mergedRow) int { return compareRows(t, o.Keys, fieldsOf(a.frame), fieldsOf(b.frame)) })
		for i, g := range got.rows {
			if g != string(all[int(o.Offset)+i].visible) {
				t.Fatalf("row %d with %+v is %q, not %q", i, o, g, all[int(o.Offset)+i].visible)
			}
		}
		return
	}
	left := map[string]bool{}
	for _, row := range all {
		left[string(row.visible)] = true
	}
	for _, g := range got.rows {
		if !left[g] {
			t.Fatalf("row %q is none, or was given twice", g)
		}
		delete(left, g)
	}
}

func fieldsOf(frame []byte) (fields [][]byte) {
	for at := 7; at < len(frame); {
		n := int(int32(binary.BigEndian.Uint32(frame[at:])))
		at += 4
		if n < 0 {
			fields = append(fields, nil)
			continue
		}
		fields = append(fields, frame[at:at+n:at+n])
		at += n
	}
	return fields
}

// compareRows compares the last fields by the dumbest means.
func compareRows(t *testing.T, keys []exec.Order, a, b [][]byte) int {
	for i, key := range keys {
		x, y := a[len(a)-len(keys)+i], b[len(b)-len(keys)+i]
		switch {
		case x == nil && y == nil:
			continue
		case x == nil || y == nil:
			if (x == nil) == key.NullsFirst {
				return -1
			}
			return 1
		}
		c := bytes.Compare(x, y)
		if key.Type == 20 {
			p, q := int64(binary.BigEndian.Uint64(x)), int64(binary.BigEndian.Uint64(y))
			c = int(p - q) // they are small
		}
		if key.Descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func TestMergeErrors(t *testing.T) {
	byInt := []exec.Order{{Type: 20}}
	fine := row([]byte("v"), int8Value(1))
	for name, c := range map[string]struct {
		keys  []exec.Order
		block []byte
		code  string
	}{
		"key too short":      {byInt, row([]byte("v"), []byte("1")), "08P01"},
		"no columns":         {byInt, row(), "08P01"},
		"cut header":         {byInt, append(bytes.Clone(fine), 'D', 0), "08P01"},
		"cut message":        {byInt, fine[:len(fine)-1], "08P01"},
		"cut, no keys":       {nil, fine[:len(fine)-1], "08P01"},
		"length 3":           {nil, []byte{'D', 0, 0, 0, 3, 0, 0}, "08P01"},
		"field beyond row":   {byInt, []byte{'D', 0, 0, 0, 10, 0, 1, 0, 0, 0, 9}, "08P01"},
		"negative field":     {byInt, []byte{'D', 0, 0, 0, 10, 0, 1, 255, 255, 255, 254}, "08P01"},
		"more than columns":  {byInt, append(wire.AppendHeader(nil, 'D', 15), append([]byte{0, 1, 0, 0, 0, 8}, make([]byte, 9)...)...), "08P01"},
		"no column count":    {byInt, []byte{'D', 0, 0, 0, 5, 0}, "08P01"},
		"bad numeric":        {[]exec.Order{{Type: 1700}}, row([]byte{0, 2, 0, 0, 0, 0, 0, 0, 0, 1}), "08P01"},
		"numeric of no sign": {[]exec.Order{{Type: 1700}}, row([]byte{0, 0, 0, 0, 1, 0, 0, 0}), "08P01"},
		"bad inet":           {[]exec.Order{{Type: 869}}, row([]byte{2, 33, 0, 4, 1, 1, 1, 1}), "08P01"},
		"bad bits":           {[]exec.Order{{Type: 1562}}, row([]byte{0, 0, 0, 9, 1}), "08P01"},
		"text by collation":  {[]exec.Order{{Type: 25}}, fine, "XX000"},
	} {
		got := sunk{t: t}
		sources := []exec.Source{newFakeSource(fine), newFakeSource(c.block)}
		if c.code == "08P01" && len(c.keys) == 1 && c.keys[0].Type != 20 {
			sources = sources[1:]
		}
		_, err := exec.Merge(sources, exec.MergeOptions{Keys: c.keys, Hidden: len(c.keys), Limit: -1}, got.sink, nil)
		var we *wire.Error
		if !errors.As(err, &we) || we.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
		var se *exec.SourceError
		if errors.As(err, &se) != (c.code == "08P01") || se != nil && se.Source != len(sources)-1 {
			t.Errorf("%s: of source %+v", name, se)
		}
	}
	// What a source and the sink fail with comes back as it is.
	for _, keys := range [][]exec.Order{nil, byInt} {
		s := newFakeSource(row(int8Value(1)), row(int8Value(2)))
		s.err = wire.Errorf("22012", "division by zero")
		got := sunk{t: t}
		_, err := exec.Merge([]exec.Source{newFakeSource(), s}, exec.MergeOptions{Keys: keys, Limit: -1}, got.sink, nil)
		var se *exec.SourceError
		if !errors.As(err, &se) || se.Source != 1 || se.Err != s.err {
			t.Errorf("%v", err)
		}
		full := errors.New("full")
		n, err := exec.Merge([]exec.Source{newFakeSource(row(int8Value(1)))}, exec.MergeOptions{Keys: keys, Limit: -1}, func([]byte) error { return full }, nil)
		if err != full || n != 0 {
			t.Errorf("%d rows: %v", n, err)
		}
	}
}

// slowSource gives what is sent to it.
type slowSource struct {
	ready chan struct{}
	next  chan []byte
}

func (s *slowSource) Ready() <-chan struct{} { return s.ready }
func (s *slowSource) Next() ([]byte, error) {
	b, ok := <-s.next
	if !ok {
		return nil, io.EOF
	}
	return b, nil
}

func (s *slowSource) give(b []byte) {
	s.ready <- struct{}{}
	s.next <- b
}

// TestMergeWaits has a source that is slow: what is due must have been given, a failure of another be told, and
// rows without an order not wait.
func TestMergeWaits(t *testing.T) {
	byInt := []exec.Order{{Type: 20}}
	for _, sources := range []int{2, 9} {
		synctest.Test(t, func(t *testing.T) {
			slow := &slowSource{make(chan struct{}, 1), make(chan []byte, 1)}
			all := []exec.Source{slow}
			for range sources - 1 {
				all = append(all, newFakeSource(row(int8Value(1)), row(int8Value(3))))
			}
			got := sunk{t: t}
			done := make(chan error)
			go func() {
				_, err := exec.Merge(all, exec.MergeOptions{Keys: byInt, Limit: -1}, got.sink, nil)
				done <- err
			}()
			synctest.Wait()
			if len(got.rows) != 0 {
				t.Fatal("rows before it is known which is first")
			}
			slow.give(row(int8Value(2)))
			synctest.Wait()
			if len(got.rows) != sources {
				t.Fatalf("%d rows of %d that are due", len(got.rows), sources)
			}
			close(slow.ready)
			close(slow.next)
			if err := <-done; err != nil || len(got.rows) != 2*sources-1 {
				t.Fatalf("%d rows: %v", len(got.rows), err)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			slow := &slowSource{make(chan struct{}, 1), make(chan []byte, 1)}
			failed := newFakeSource()
			failed.err = errors.New("failed")
			all := []exec.Source{slow, failed}
			for range sources - 2 {
				all = append(all, newFakeSource(row(int8Value(1))))
			}
			for _, keys := range [][]exec.Order{nil, byInt} {
				got := sunk{t: t}
				_, err := exec.Merge(all, exec.MergeOptions{Keys: keys, Limit: -1}, got.sink, nil)
				var se *exec.SourceError
				if !errors.As(err, &se) || se.Source != 1 {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMergePassesBlocks shows that rows nobody has to look into are not copied.
func TestMergePassesBlocks(t *testing.T) {
	block := slices.Concat(row([]byte("a")), row([]byte("b")), row([]byte("c")))
	s := newFakeSource(block)
	calls := 0
	rows, err := exec.Merge([]exec.Source{s}, exec.MergeOptions{Offset: 1, Limit: 2}, func(frames []byte) error {
		if calls++; &frames[0] != &s.last[len(block)/3] {
			t.Error("copied")
		}
		return nil
	}, nil)
	if err != nil || rows != 2 || calls != 1 {
		t.Fatalf("%d rows, %d calls: %v", rows, calls, err)
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(row([]byte("v"), int8Value(1)), row([]byte("v"), int8Value(2)), byte(0))
	f.Add(row([]byte("v"), []byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 1}), row(nil, nil), byte(3))
	f.Add(row([]byte{2, 32, 0, 4, 1, 1, 1, 1}), row([]byte{0, 0, 0, 9, 1, 1}), byte(5))
	types := []uint32{20, 25, 1042, 1700, 1186, 869, 1562, 1266, 700, 17, 2950}
	f.Fuzz(func(t *testing.T, a, b []byte, by byte) {
		for _, hidden := range []int{0, 1, 2} {
			for _, keys := range [][]exec.Order{nil, {{Type: types[int(by)%len(types)], Bytewise: true, Descending: by&128 != 0}}} {
				got := sunk{t: t}
				rows, err := exec.Merge([]exec.Source{newFakeSource(a), newFakeSource(b)}, exec.MergeOptions{Keys: keys, Hidden: hidden, Limit: -1}, got.sink, nil)
				if int(rows) != len(got.rows) {
					t.Fatalf("%d rows said, %d given: %v", rows, len(got.rows), err)
				}
			}
		}
	})
}

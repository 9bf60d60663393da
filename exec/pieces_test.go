package exec_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"shardproxy/exec"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// brought are the rows of sources that a test feeds.
type brought struct {
	p    *exec.Pieces
	left [][][]byte // blocks of each source
}

// take returns the next rows, as few blocks as can be being fed.
func (b *brought) take(t *testing.T, max int64) (rows []string, err error) {
	t.Helper()
	for max < 0 || int64(len(rows)) < max {
		left := max
		if max > 0 {
			left -= int64(len(rows))
		}
		frames, n, wants, err := b.p.Next(left)
		if err != nil {
			return rows, err
		}
		if wants < 0 {
			cut := cutFrames(t, frames)
			if int64(len(cut)) != n || n == 0 || max > 0 && n > left {
				t.Fatalf("%d rows said, %d given, %d asked for", n, len(cut), left)
			}
			rows = append(rows, cut...)
			continue
		}
		if !b.p.Wants(wants) {
			t.Fatal("a source is asked for that wants nothing")
		}
		var block []byte
		if len(b.left[wants]) > 0 {
			block, b.left[wants] = bytes.Clone(b.left[wants][0]), b.left[wants][1:]
		}
		b.p.Feed(wants, block, len(b.left[wants]) == 0)
	}
	return rows, nil
}

// cutFrames returns the bodies of DataRow messages.
func cutFrames(t *testing.T, b []byte) (rows []string) {
	t.Helper()
	for len(b) > 0 {
		n := int(b[1])<<24 | int(b[2])<<16 | int(b[3])<<8 | int(b[4]) + 1
		if b[0] != wire.MsgDataRow || n > len(b) {
			t.Fatalf("no row: %q", b)
		}
		rows, b = append(rows, string(b[5:n])), b[n:]
	}
	return rows
}

// TestPieces takes merges in pieces of all sizes, and compares the whole with one in one go.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		sources, sorted := 1+r.IntN(12), r.IntN(2) == 0
		o := exec.MergeOptions{Limit: -1}
		if r.IntN(3) == 0 {
			o.Offset = int64(r.IntN(20))
		}
		if r.IntN(3) == 0 {
			o.Limit = int64(r.IntN(50))
		}
		if sorted {
			o.Keys, o.Hidden = []exec.Order{{Type: shardmap.Int8.OID()}}, 1
		}
		b := &brought{p: exec.NewPieces(sources, o), left: make([][][]byte, sources)}
		var whole []exec.Source
		for i := range sources {
			var values []int64
			for range r.IntN(40) {
				values = append(values, int64(r.IntN(1000)))
			}
			slices.Sort(values)
			var frames [][]byte
			for _, v := range values {
				frames = append(frames, row([]byte(fmt.Sprint(v)), int8Value(v)))
			}
			b.left[i] = split(r, frames)
			whole = append(whole, newFakeSource(b.left[i]...))
		}
		var want []string
		if _, err := exec.Merge(whole, o, func(frames []byte) error {
			want = append(want, cutFrames(t, bytes.Clone(frames))...)
			return nil
		}, nil); err != nil {
			t.Fatal(err)
		}
		total := 0
		for i := range b.left {
			for _, block := range b.left[i] {
				total += len(block)
			}
		}
		var got []string
		for {
			rows, err := b.take(t, int64(1+r.IntN(30)))
			got = append(got, rows...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h := b.p.Held(); h < 0 || h > total {
				t.Fatalf("%d bytes are held of %d", h, total)
			}
		}
		if _, err := b.take(t, 1); err != io.EOF {
			t.Fatalf("behind the end: %v", err)
		}
		if o.Limit < 0 && (b.p.Unread() || b.p.Held() != 0) {
			t.Fatalf("round %d: at the end %d bytes are held, unread: %v", round, b.p.Held(), b.p.Unread())
		}
		if b.p.Close(); sorted && !slices.Equal(got, want) || len(got) != len(want) {
			t.Fatalf("round %d: %d rows, want %d\n%q\n%q", round, len(got), len(want), got, want)
		}
	}
}

// TestPiecesAskLate asks for no block as long as rows are due.
func TestPiecesAskLate(t *testing.T) {
	p := exec.NewPieces(2, exec.MergeOptions{Limit: -1, Keys: []exec.Order{{Type: shardmap.Int8.OID()}}, Hidden: 1})
	defer p.Close()
	for range 2 {
		_, _, wants, err := p.Next(1)
		if wants < 0 || err != nil {
			t.Fatal(wants, err)
		}
		v := int64(10 * wants)
		p.Feed(wants, slices.Concat(row([]byte("a"), int8Value(v)), row([]byte("b"), int8Value(v+1))), false)
	}
	for range 2 {
		if frames, rows, wants, err := p.Next(1); rows != 1 || wants >= 0 || err != nil {
			t.Fatalf("%q %d %d %v", frames, rows, wants, err)
		}
	}
	if !p.Unread() || p.Wants(1) != true {
		t.Error("two rows are held", p.Unread(), p.Wants(1))
	}
	if _, rows, wants, err := p.Next(1); rows != 0 || wants != 0 || err != nil {
		t.Fatal(rows, wants, err)
	}
}

// TestPiecesFail has rows that are not well-formed, and ends a merge in the middle.
func TestPiecesFail(t *testing.T) {
	p := exec.NewPieces(1, exec.MergeOptions{Limit: -1, Keys: []exec.Order{{Type: shardmap.Int8.OID()}}, Hidden: 1})
	if _, _, wants, err := p.Next(1); wants != 0 || err != nil {
		t.Fatal(wants, err)
	}
	p.Feed(0, row([]byte("a"), []byte("b")), false)
	for range 2 {
		_, _, _, err := p.Next(1)
		var of *exec.SourceError
		if !errors.As(err, &of) || of.Source != 0 || wire.AsError(err).Code != "08P01" {
			t.Fatal(err)
		}
	}
	p.Close()
	p.Close()
	if _, _, _, err := p.Next(1); err == nil {
		t.Fatal("what is closed gives no error")
	}
	exec.NewPieces(3, exec.MergeOptions{}).Close()
}

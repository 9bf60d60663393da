package pool

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"shardproxy/wire"
)

// pieces is a connection that gives a few bytes at a time.
type pieces struct {
	data  []byte
	sizes []byte
	at    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(p.sizes) > 0 {
		n = 1 + int(p.sizes[p.at%len(p.sizes)])<<(p.at%9)
		p.at++
	}
	n = copy(b, p.data[:min(n, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

// readPlainly is what a stream must make of an answer: the frames it hands on, how it ends,
// and what is left.
func readPlainly(data []byte, limit int) (frames []byte, code string, rest []byte) {
	r := bytes.NewReader(data)
	for {
		kind, body, err := wire.ReadMessage(r, limit)
		if err != nil {
			return frames, "other", nil // broken off, or too large
		}
		switch kind {
		case wire.MsgReadyForQuery:
			if !isStatus(body) {
				return frames, "other", nil
			}
			rest, _ = io.ReadAll(r)
			return frames, code, rest
		case wire.MsgErrorResponse:
			e := wire.ReadError(body)
			if e.IsFatal() {
				return frames, "other", nil
			}
			if code == "" {
				code = "error"
			}
		case wire.MsgParameterStatus, wire.MsgNotificationResponse, wire.MsgNoticeResponse:
		case wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
			return frames, "other", nil
		default:
			if code == "" {
				frames = wire.AppendFrame(frames, kind, body)
			}
		}
	}
}

// spoken makes an answer of a script: pairs of a kind and a size, the sizes being those around
// which blocks change.
func spoken(script []byte) (data []byte) {
	sizes := []int{0, 1, 4, 100, 4000, firstBlockSize - 5, firstBlockSize, blockSize - 6, blockSize - 5, blockSize - 4, 90000}
	failure := wire.Errorf("22012", "division by zero").Append(nil)
	for ; len(script) >= 2; script = script[2:] {
		switch kind := "DDDDdTCNNSA1EZ"[script[0]%14]; kind {
		case 'E':
			data = append(data, failure...)
		case 'Z':
			data = wire.AppendReadyForQuery(data, 'I')
		default:
			size := sizes[int(script[1]>>2)%len(sizes)] + int(script[1]&3)
			data = wire.AppendFrame(data, kind, bytes.Repeat([]byte{script[1]}, size))
		}
	}
	return data
}

// FuzzStream reads arbitrary answers in arbitrary pieces: what a script says, and then anything.
func FuzzStream(f *testing.F) {
	f.Add([]byte{5, 4, 0, 12, 0, 40, 7, 12, 0, 24, 0, 32, 6, 4, 13, 0}, []byte{}, []byte{7, 255}, false)
	f.Add([]byte{0, 40, 0, 40, 0, 40, 0, 16, 12, 0, 0, 40, 13, 0}, []byte("Nrest"), []byte{200}, false)
	f.Add([]byte{0, 40, 0, 28, 0, 28, 0, 28, 0, 28, 0, 28, 13, 0}, []byte{}, []byte{255}, true)
	f.Add([]byte{0, 4}, []byte{'D', 255, 255, 255, 255}, []byte{255}, false)
	f.Fuzz(func(t *testing.T, script, raw, sizes []byte, early bool) {
		const limit = 80000
		data := append(spoken(script[:min(len(script), 40)]), raw...)
		from := &pieces{data: data, sizes: sizes}
		r := &streamReader{ring: newRing(), from: from, limit: limit}
		r.begin(nil)
		done := make(chan error)
		go func() { done <- r.run() }()
		var got []byte
		var end error
		for end == nil && !early {
			var frames []byte
			if frames, end = r.ring.take(); end == nil && len(frames) == 0 {
				t.Fatal("nothing, and no error")
			}
			got = append(got, frames...)
		}
		r.ring.discard()
		err := <-done
		want, code, rest := readPlainly(data, limit)
		if !early && !bytes.Equal(got, want) && code != "other" {
			t.Fatalf("%d bytes handed on, not %d", len(got), len(want))
		}
		if !early && code == "other" && !bytes.HasPrefix(want, got) {
			t.Fatalf("%d bytes handed on that are not the first of %d", len(got), len(want))
		}
		var we *wire.Error
		switch {
		case code == "" && (err != nil || !early && end != io.EOF):
			t.Fatalf("a good answer ends with %v, %v", end, err)
		case code == "error" && (!errors.As(err, &we) || we.IsFatal()):
			t.Fatalf("a failed answer ends with %v, %v", end, err)
		case code == "other" && err == nil:
			t.Fatal("what is no answer ends well")
		}
		if left := append(r.rest, from.data...); code != "other" && !bytes.Equal(left, rest) {
			t.Fatalf("%d bytes left, not %d", len(left), len(rest))
		}
	})
}

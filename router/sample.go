package router

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"

	"shardproxy/shardmap"
)

// sampleMax is how many keys of one statement a Sample takes.
const sampleMax = 4

// Sample takes the slots of the keys that a plan is located by, and the keys of one column, as texts.
type Sample struct {
	// Slots are Count slots; Of is how many there are in all.
	Slots     [sampleMax]shardmap.Slot
	Count, Of int
	// WithKeys has the keys noted too.
	WithKeys bool
	keys     [sampleMax][]byte
}

// Key returns the key of the i-th slot, "" when it is not known, or of several columns. It is valid until the next Reset.
func (s *Sample) Key(i int) []byte { return s.keys[i] }

// Reset forgets what was noted, and keeps the storage.
func (s *Sample) Reset() {
	for i := range s.keys {
		s.keys[i] = s.keys[i][:0]
	}
	s.Count = 0
}

// note takes a key; a slot that is there already is not noted again.
func (s *Sample) note(slot shardmap.Slot, of int, v shardmap.Value, columns int) {
	if s.Count == sampleMax {
		return
	}
	for _, have := range s.Slots[:s.Count] {
		if have == slot {
			return
		}
	}
	i := s.Count
	s.Slots[i], s.Of = slot, of
	s.Count++
	if s.WithKeys && columns == 1 {
		s.keys[i] = appendKey(s.keys[i][:0], v)
	}
}

// appendKey writes a key as text, whatever way it came.
func appendKey(dst []byte, v shardmap.Value) []byte {
	const keyMax = 64
	if len(v.Data) > keyMax {
		return dst
	}
	switch v.Type {
	case shardmap.Int2, shardmap.Int4, shardmap.Int8:
		if v.Format == shardmap.TextFormat {
			if n, err := strconv.ParseInt(string(v.Data), 10, 64); err == nil {
				return strconv.AppendInt(dst, n, 10) // 007 is 7
			}
			return append(dst, v.Data...)
		}
		switch len(v.Data) {
		case 2:
			return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(v.Data))), 10)
		case 4:
			return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(v.Data))), 10)
		case 8:
			return strconv.AppendInt(dst, int64(binary.BigEndian.Uint64(v.Data)), 10)
		}
	case shardmap.UUID:
		if v.Format != shardmap.TextFormat && len(v.Data) == 16 {
			h := hex.EncodeToString(v.Data)
			return append(dst, h[:8]+"-"+h[8:12]+"-"+h[12:16]+"-"+h[16:20]+"-"+h[20:]...)
		}
		return append(dst, v.Data...)
	}
	if v.Format == shardmap.TextFormat || v.Type == shardmap.Text {
		return append(dst, v.Data...)
	}
	return hex.AppendEncode(append(dst, `\x`...), v.Data)
}

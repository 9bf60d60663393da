package exec

// Sizes of chunks, in bytes. A new one has an eighth of what there is at most, so that no more than that
// is unused and nothing is copied when it grows.
const (
	chunkMin = 512
	chunkMax = 1 << 20
)

// chunks is a string of bytes that grows at its end.
type chunks struct {
	all    [][]byte
	length int
}

// needs returns how many bytes appending n more will allocate.
func (c *chunks) needs(n int) (more int) {
	room := 0
	if len(c.all) > 0 {
		last := c.all[len(c.all)-1]
		room = cap(last) - len(last)
	}
	for length := c.length + room; n > room; {
		size := chunkSize(length)
		more += size
		n -= room
		room = size
		length += size
	}
	return more
}

// chunkSize returns the size of the chunk behind length bytes. It is one the allocator has: a power of two
// or, from 32 KiB on, a number of pages.
func chunkSize(length int) int {
	size := chunkMin
	for size < 32<<10 && size*16 <= length {
		size *= 2
	}
	if size == 32<<10 {
		size = min(max(size, length/8&^(8<<10-1)), chunkMax)
	}
	return size
}

// append copies p to the end.
func (c *chunks) append(p []byte) {
	for len(p) > 0 {
		last := c.last()
		n := min(len(p), cap(*last)-len(*last))
		*last = append(*last, p[:n]...)
		c.length += n
		p = p[n:]
	}
}

func (c *chunks) appendByte(b byte) {
	last := c.last()
	*last = append(*last, b)
	c.length++
}

// last returns the last chunk, which has room.
func (c *chunks) last() *[]byte {
	if n := len(c.all); n > 0 && len(c.all[n-1]) < cap(c.all[n-1]) {
		return &c.all[n-1]
	}
	c.all = append(c.all, make([]byte, 0, chunkSize(c.length)))
	return &c.all[len(c.all)-1]
}

// appendTo appends all bytes to dst.
func (c *chunks) appendTo(dst []byte) []byte {
	for _, p := range c.all {
		dst = append(dst, p...)
	}
	return dst
}

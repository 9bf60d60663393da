package proxy_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// Copy data of all sizes come to an end, also when the server takes the last of it
// that was held back at once and nothing more comes from the client.
func TestCopyDataHeldBack(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	c := mustDial(t, f.addr, "app")
	c.do(t, "CREATE TABLE sink (v text)")
	row := append(bytes.Repeat([]byte("x"), 8191), '\n')
	for i := range 120 {
		rows := 100 + rand.IntN(1500)
		data := frames(fQuery("COPY sink FROM STDIN WHERE v IS NULL"))
		one := fCopyData(string(row)).bytes()
		for range rows {
			data = append(data, one...)
		}
		data = append(data, frames(fCopyDone())...)
		written := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			written <- err
		}()
		if _, err := c.until('Z', 1); err != nil {
			t.Fatalf("turn %d, %d rows: %v", i, rows, fmt.Sprint(err))
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
}

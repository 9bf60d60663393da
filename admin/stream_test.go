package admin

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"shardproxy/auth"
	"shardproxy/wire"
)

// TestClientThatDoesNotRead: it is dropped when the time is over, whatever of
// its answer is left.
func TestClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c, err := NewConsole(ConsoleOptions{Source: w, Configuration: w, Steerer: w})
		if err != nil {
			t.Fatal(err)
		}
		client, server := net.Pipe()
		defer client.Close()
		began := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer server.Close()
			if err := c.Serve(t.Context(), server, auth.Identity{User: "ops", Monitor: true}, &wire.Startup{}); err != nil {
				t.Error(err)
			}
		}()
		for kind := byte(0); kind != 'Z'; { // the greeting is read, and nothing else
			if kind, _, err = wire.ReadMessage(client, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client.Write(wire.AppendQuery(nil, "SHOW CLIENTS")); err != nil {
			t.Fatal(err)
		}
		<-ended
		if took := time.Since(began); took != writeTimeout {
			t.Errorf("dropped after %s", took)
		}
	})
}

// memory is a stream of which everything has arrived.
type memory struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (m *memory) Read(p []byte) (int, error)      { return m.in.Read(p) }
func (m *memory) Write(p []byte) (int, error)     { return m.out.Write(p) }
func (m *memory) SetReadDeadline(time.Time) error { return nil }

// FuzzSession: whatever bytes a client sends, the session ends, and what it has
// sent is a series of whole messages.
func FuzzSession(f *testing.F) {
	parse := wire.AppendParse(nil, "a", []byte("SHOW POOLS\x00\x00\x00"))
	bind := wire.AppendFrame(nil, 'B', []byte("\x00a\x00\x00\x00\x00\x00\x00\x01\x00\x01"))
	execute := wire.AppendFrame(nil, 'E', []byte("\x00\x00\x00\x00\x01"))
	sync := wire.AppendEmpty(nil, 'S')
	f.Add(wire.AppendQuery(nil, "SHOW CLIENTS"))
	f.Add(wire.AppendQuery(wire.AppendQuery(nil, "BEGIN"), "PAUSE shop"))
	f.Add(bytes.Join([][]byte{parse, bind, wire.AppendFrame(nil, 'D', []byte("P\x00")), execute, sync}, nil))
	f.Add(bytes.Join([][]byte{wire.AppendQuery(nil, "SET application_name = 'x'"), wire.AppendClose(nil, 'S', "a"), sync, wire.AppendEmpty(nil, 'X')}, nil))
	f.Add(wire.AppendQuery(nil, "SHUTDOWN"))
	f.Add([]byte("B\x00\x00\x00\x08\x00\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 64<<10 {
			return
		}
		w := newWorld()
		c, err := NewConsole(ConsoleOptions{Source: w, Configuration: w, Steerer: w, Clock: clockAt})
		if err != nil {
			t.Fatal(err)
		}
		m := &memory{in: bytes.NewReader(in)}
		id := auth.Identity{User: "admin", Admin: true}
		if err := c.Serve(context.Background(), m, id, &wire.Startup{Protocol: wire.Protocol30}); err != nil {
			t.Fatal(err)
		}
		if len(c.clients()) != 0 {
			t.Fatal("the session is still counted")
		}
		for {
			_, _, err := wire.ReadMessage(&m.out, 1<<20)
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

package main

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"shardproxy/admin"
	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// saltOf returns the salt that the proxy shows to somebody who logs in as user.
func (px *proxied) saltOf(user string) string {
	px.t.Helper()
	c, err := net.Dial("tcp", px.addr)
	if err != nil {
		px.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		px.t.Fatal(err)
	}
	startup := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00app\x00\x00"
	first := "n,,n=,r=nonce"
	out := append(binary.BigEndian.AppendUint32(nil, uint32(len(startup)+4)), startup...)
	out = wire.AppendFrame(out, 'p', append(binary.BigEndian.AppendUint32([]byte("SCRAM-SHA-256\x00"), uint32(len(first))), first...))
	if _, err := c.Write(out); err != nil {
		px.t.Fatal(err)
	}
	for range 2 { // AuthenticationSASL, AuthenticationSASLContinue
		_, body, err := wire.ReadMessage(c, 1<<16)
		if err != nil {
			px.t.Fatal(err)
		}
		if _, rest, ok := strings.Cut(string(body), ",s="); ok {
			return rest
		}
	}
	px.t.Fatal("no challenge")
	return ""
}

// TestSharedSecret has several proxies show the same salts for names that
// nobody has.
func TestSharedSecret(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	with := configText + "auth: {secret: a secret of sixteen bytes, throttle: {delay: 0}}\n"
	one, two := startProgram(t, cl, with), startProgram(t, cl, with)
	if a, b := one.saltOf("ghost"), two.saltOf("ghost"); a != b {
		t.Errorf("two proxies with one secret show %q and %q", a, b)
	}
	if a, b := one.saltOf("ghost"), one.saltOf("spook"); a == b {
		t.Error("two names have one salt")
	}
	alone := startProgram(t, cl, configText)
	if a, b := one.saltOf("ghost"), alone.saltOf("ghost"); a == b {
		t.Error("without a secret the salt can be predicted")
	}
	one.write(strings.Replace(one.text(), "a secret of sixteen", "another of sixteen", 1))
	if err := one.p.reload(); err == nil || !strings.Contains(err.Error(), "need a restart: auth.secret") {
		t.Errorf("a reload with another secret: %v", err)
	}
}

// TestServersAreBounded has two users share the only connection there may be.
func TestServersAreBounded(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	text := strings.Replace(configText, "shards:", "pool: {max_servers: 1}\n    shards:", 1)
	text = strings.Replace(text, "databases:", "  - {name: other, password: x, server_user: app, server_password: "+pgcluster.AppPassword+"}\ndatabases:", 1)
	px := startProgram(t, cl, text)
	app := px.connect()
	other := px.connectTo(strings.Replace(px.dsn(), "app:"+pgcluster.AppPassword, "other:x", 1))
	for range 3 {
		serverPort(t, app)
		serverPort(t, other)
	}
	n := 0
	for _, st := range px.p.state.Load().databases["app"].shards[0].pools.Stats() {
		n += st.Total
	}
	if n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestPauseResumed tells who pauses that somebody resumed.
func TestPauseResumed(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText)
	tx, err := px.connect().Begin(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(within(t, 20*time.Second), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	s := &source{p: px.p}
	paused := make(chan error, 1)
	go func() { paused <- s.Pause(within(t, 20*time.Second), "app") }()
	eventually(t, "the database is paused", px.p.state.Load().databases["app"].shards[0].pools.Paused)
	if err := s.Resume("app"); err != nil {
		t.Fatal(err)
	}
	if err := <-paused; !errors.Is(err, admin.ErrResumed) {
		t.Errorf("got %v", err)
	}
	if err := tx.Commit(within(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
}

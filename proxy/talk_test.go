package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// say sends frames at once and returns the answers up to the n-th
// ReadyForQuery, one line each; an END line tells why there are fewer.
func (c *rawClient) say(n int, frames ...frame) (lines []string) {
	var out []byte
	for _, f := range frames {
		out = append(out, f.bytes()...)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = c.Write(out) // what went wrong shows in the answers
	}()
	defer func() {
		if n > 0 {
			_ = c.Close()
		}
		<-sent
	}()
	for n > 0 {
		kind, body, err := c.receive(8 * time.Second)
		if err != nil {
			return append(lines, "END "+err.Error())
		}
		if kind == 'Z' {
			n--
		}
		lines = append(lines, describeMessage(kind, body))
	}
	return lines
}

// ask runs one simple query and returns its answers in one line.
func (c *rawClient) ask(sql string) string { return strings.Join(c.say(1, fQuery(sql)), " | ") }

// mustAsk fails the test unless the answer contains want.
func (c *rawClient) mustAsk(t testing.TB, sql, want string) {
	t.Helper()
	if got := c.ask(sql); !strings.Contains(got, want) {
		t.Errorf("%s: got %s, want %s", sql, got, want)
	}
}

// do runs one simple query that must succeed.
func (c *rawClient) do(t testing.TB, sql string) {
	t.Helper()
	if got := c.ask(sql); strings.HasPrefix(got, "E ") || strings.Contains(got, "| E ") || strings.Contains(got, "END ") {
		t.Fatalf("%s: %s", sql, got)
	}
}

// extended is a statement by the extended protocol, without a Sync.
func extended(sql string) []frame { return []frame{fParse("", sql), fBind("", ""), fExecute("", 0)} }

// segment is the statements by the extended protocol with one Sync behind them.
func segment(sql ...string) (all []frame) {
	for _, q := range sql {
		all = append(all, extended(q)...)
	}
	return append(all, fSync())
}

func contains(lines []string, part string) bool {
	return strings.Contains(strings.Join(lines, " | "), part)
}

func (c *rawClient) mustSay(t testing.TB, n int, want string, frames ...frame) {
	t.Helper()
	if got := c.say(n, frames...); !contains(got, want) {
		t.Errorf("%v: got %s, want %s", fmt.Sprint(frames), strings.Join(got, " | "), want)
	}
}

// cutNUL returns s up to its first NUL.
func cutNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

package main

import (
	"context"
	"io"
	"math"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLoadArguments(t *testing.T) {
	for _, c := range []struct {
		load load
		each time.Duration
		want string
	}{
		{load{mode: "simple", clients: 8}, 2 * time.Second, "-n -S -j 1 -M simple -c 8 --sampling-rate=0.2 -T 2"},
		{load{mode: "prepared", clients: 1}, 1100 * time.Millisecond, "-n -S -j 1 -M prepared -c 1 --sampling-rate=0.2 -T 2"},
		{load{mode: "simple", clients: 8}, 200 * time.Millisecond, "-n -S -j 1 -M simple -c 8 --sampling-rate=0.2 -t 200"},
		{load{mode: "simple", clients: 8, rate: 4000}, time.Second, "-n -S -j 1 -M simple -c 8 -R 4000.000 -T 1"},
		{load{mode: "simple", clients: 8, rate: 4000}, time.Second / 5, "-n -S -j 1 -M simple -c 8 -R 4000.000 -t 100"},
		{load{mode: "simple", clients: 8, rate: 1}, time.Second / 5, "-n -S -j 1 -M simple -c 8 -R 1.000 -t 1"},
		{load{mode: "simple", clients: 8, script: "a.sql"}, time.Second, "-n -f a.sql -j 1 -M simple -c 8 --sampling-rate=0.2 -T 1"},
	} {
		if got := strings.Join(c.load.args(c.each), " "); got != c.want {
			t.Errorf("%+v for %s: %s", c.load, c.each, got)
		}
	}
}

func TestLoadOfARow(t *testing.T) {
	for _, row := range statementRows([]string{"simple", "prepared"}, []int{1, 64}) {
		l, err := loadOf(row)
		if err != nil || statementRow(l.mode, l.clients) != row || l.rate != 0 {
			t.Errorf("%s is %+v, %v", row, l, err)
		}
	}
	if l, err := loadOf("simple"); err == nil {
		t.Errorf("no clients give %+v", l)
	}
}

func TestCPUOfALogin(t *testing.T) {
	// 1,000 statements of 0.02 ms and 100 logins in 50 ms.
	if got := cpuOfALogin(50*time.Millisecond, 0.02, 1000, 100); math.Abs(got-0.3) > 1e-9 {
		t.Errorf("%v ms", got)
	}
}

func TestDue(t *testing.T) {
	for since, want := range map[time.Duration]int{0: 1, 3 * time.Millisecond: 1, 4 * time.Millisecond: 2, time.Second: 301, 90 * time.Second: 27001} {
		if got := due(since, 300); got != want {
			t.Errorf("after %s %d are due, not %d", since, got, want)
		}
	}
}

// listener accepts clients until the test ends and lets handle have them.
func listener(t *testing.T, handle func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// A storm keeps its rate, ends when it is told to, and each of its clients
// says good-bye.
func TestLogIns(t *testing.T) {
	var partings atomic.Int32
	port := listener(t, func(c net.Conn) {
		startup := make([]byte, 8)
		if _, err := io.ReadFull(c, startup); err != nil {
			return
		}
		rest := make([]byte, int(startup[2])<<8+int(startup[3])-8)
		if _, err := io.ReadFull(c, rest); err != nil {
			return
		}
		if _, err := c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I")); err != nil {
			return
		}
		if got, _ := io.ReadAll(c); string(got) == "X\x00\x00\x00\x04" {
			partings.Add(1)
		}
	})
	l, err := newLogin()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{login: l}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		await(t, func() bool { return partings.Load() >= 20 })
	}()
	done, err := s.logIns(context.Background(), &endpoint{port: port}, 100, stop)
	if err != nil || len(done.each) < 20 || done.each.median() <= 0 {
		t.Errorf("%d logins, %v", len(done.each), err)
	}
	// The 20th is due after 190 ms.
	if rate := float64(len(done.each)-1) / done.took.Seconds(); rate > 101 {
		t.Errorf("%.0f logins a second", rate)
	}
	await(t, func() bool { return int(partings.Load()) == len(done.each) })
}

// A pooler that refuses ends the storm with its error, without a word from
// who began it.
func TestLogInsRefused(t *testing.T) {
	port := listener(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
			return
		}
		// The rest of the packet is read so that closing does not reset.
		_, _ = c.Read(make([]byte, 100))
		_, _ = c.Write([]byte("E\x00\x00\x00\x0cC53300\x00\x00"))
	})
	l, err := newLogin()
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&stage{login: l}).logIns(context.Background(), &endpoint{port: port}, 100, make(chan struct{}))
	if err == nil || !strings.Contains(err.Error(), "53300") {
		t.Errorf("refused logins: %v", err)
	}
}

func TestRateTable(t *testing.T) {
	plain := []*endpoint{{name: directName, plain: true}, {name: proxyName, plain: true}}
	m := &measurement{stage: &stage{options: options{rateClients: []int{8}}, endpoints: plain}, rate: rounds{}}
	for _, v := range []float64{100, 1000, 10000} {
		m.rate.add("8", directName, "p99", v)
		m.rate.add("8", proxyName, "p99", 1.5*v)
	}
	want := table{
		{"8", "-", directName, "-", "-", "-", "1000", "1.00 (1.00-1.00)"},
		{"8", "-", proxyName, "-", "-", "-", "1500", "1.50 (1.50-1.50)"},
	}
	if got := m.rateTable()[1:]; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
}

// Saturation is measured once for a number of clients.
func TestSaturationIsKept(t *testing.T) {
	m := &measurement{saturations: map[int]float64{8: 5000}}
	if got, err := m.saturation(context.Background(), 8); err != nil || got != 5000 {
		t.Errorf("%v, %v", got, err)
	}
}

// A storm is held against the quiet of its own round.
func TestStormTable(t *testing.T) {
	side := &endpoint{name: proxyName, plain: true, command: func() *exec.Cmd { return nil }}
	m := &measurement{stage: &stage{endpoints: []*endpoint{side}}, storm: rounds{}}
	for _, v := range []float64{100, 1000, 10000} {
		m.storm.add(quietRow, proxyName, "p99", v)
		m.storm.add(stormRow, proxyName, "p99", 2*v)
		m.storm.add(stormRow, proxyName, "cpu", 0.25)
	}
	want := []string{proxyName, "-", "-", "-", "-", "-", "1000", "2000", "2.00 (2.00-2.00)", "-", "0.25", "-"}
	if got := m.stormTable()[1:]; len(got) != 1 || !slices.Equal(got[0], want) {
		t.Errorf("got %q", got)
	}
}

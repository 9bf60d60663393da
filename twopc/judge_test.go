package twopc

import (
	"strings"
	"testing"
	"time"
)

const someCluster = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		row   row
		owner string
		want  verdict
	}{
		{row{}, "buyer", doubtful},
		{row{found: true, committed: true, by: "buyer"}, "buyer", commitIt},
		{row{found: true, committed: true, by: "buyer"}, "Buyer", doubtful},
		{row{found: true, committed: true, by: "thief"}, "buyer", doubtful},
		{row{found: true, committed: true, by: "app", trusted: true}, "buyer", commitIt},
		{row{found: true, by: "app", trusted: true}, "buyer", rollBackIt},
		{row{found: true, by: "a former owner"}, "buyer", rollBackIt},
	} {
		got, why := judge(test.row, test.owner)
		if got != test.want || (why == "") != (got != doubtful) {
			t.Errorf("%+v of %q: %v (%s), want %v", test.row, test.owner, got, why, test.want)
		}
	}
}

func TestDue(t *testing.T) {
	for _, test := range []struct {
		age                   time.Duration
		live, abandoned, want bool
	}{
		{9 * time.Second, false, false, false},
		{10 * time.Second, false, false, true},
		{time.Hour, true, false, false},
		{0, false, true, true},
	} {
		if got := (&part{age: test.age}).due(10*time.Second, test.live, test.abandoned); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("ü", 31) + "x"
	for _, shard := range []string{"s0", "eu-west_1.a", "it's", "a:b", "", " ", "=x", long, strings.Repeat("x", 63)} {
		gid := newGID(someCluster, shard)
		name := partName(gid, 65535)
		if len(name) >= 200 || strings.ContainsAny(name, "'\\\" \n") {
			t.Errorf("shard %q: name %q of %d bytes", shard, name, len(name))
		}
		got, word, err := parsePart(someCluster, name)
		if shard == "" {
			if err == nil {
				t.Errorf("%q is taken apart", name)
			}
			continue
		}
		if err != nil || got != gid || word != shardWord(shard) {
			t.Errorf("%q: %q, %q, %v", name, got, word, err)
		}
	}
	if one := newGID(someCluster, "s0"); one == newGID(someCluster, "s0") {
		t.Error("two transactions have one name")
	}
	if shardWord("a:b") == shardWord("a;b") {
		t.Error("two shards have one word")
	}
	good := partName(newGID(someCluster, "s0"), 1)
	for _, bad := range []string{"", "shardproxy:", good + ":1", good[:len(good)-2], good[:len(good)-1], good + "x", strings.ToLower(good),
		strings.Replace(good, ":1", ":0", 1), strings.Replace(good, ":1", ":01", 1), strings.Replace(good, ":1", ":+1", 1), strings.Replace(good, ":s0:", ":s'0:", 1),
		strings.Replace(good, ":s0:", ":s0:\n", 1), strings.Replace(good, "6ba7", "6ba8", 1), strings.Replace(good, ":s0:", ":s=0:", 1)} {
		if gid, word, err := parsePart(someCluster, bad); err == nil && bad != good {
			t.Errorf("%q is %q of %q", bad, gid, word)
		}
	}
}

// FuzzParsePart: what is taken apart is what partName makes, and needs no quoting.
func FuzzParsePart(f *testing.F) {
	f.Add(partName(newGID(someCluster, "s0"), 1))
	f.Add(partName(newGID(someCluster, "it's"), 12))
	f.Add("shardproxy:" + someCluster + ":x'; DROP TABLE t; --:AAAAAAAAAAAAAAAAAAAA:1")
	f.Fuzz(func(t *testing.T, name string) {
		gid, word, err := parsePart(someCluster, name)
		if err != nil {
			return
		}
		if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:=") != "" || !strings.HasPrefix(name, gid+":") ||
			!strings.HasPrefix(gid, prefixOf(someCluster)+word+":") {
			t.Errorf("%q: %q of %q", name, gid, word)
		}
	})
}

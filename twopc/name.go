package twopc

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
)

// Names are of letters that mean the same in every encoding and need no quoting,
// and shorter than the 200 bytes that PostgreSQL allows.
const (
	namePrefix = "shardproxy:"
	idBytes    = 36 // of a UUID as text
	hashMark   = "="
	hashBytes  = 15
	randBytes  = 12
)

var base32Text = base32.StdEncoding.WithPadding(base32.NoPadding)

// newGID names a transaction of a cluster that a shard decides:
// "shardproxy:<cluster>:<shard>:<96 random bits>".
func newGID(cluster, decider string) string {
	var b [randBytes]byte
	_, _ = rand.Read(b[:]) // it never fails
	return prefixOf(cluster) + shardWord(decider) + ":" + base32Text.EncodeToString(b[:])
}

// partName names the n-th part of a transaction. Two shards may be databases of
// one server, whose prepared transactions share one set of names.
func partName(gid string, n int) string { return gid + ":" + strconv.Itoa(n) }

func prefixOf(cluster string) string { return namePrefix + cluster + ":" }

// shardWord is a shard's name within a gid: itself, or a hash of it when it has
// letters that could be taken for something else.
func shardWord(name string) string {
	for _, r := range name {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.", r) {
			sum := sha256.Sum256([]byte(name))
			return hashMark + base32Text.EncodeToString(sum[:hashBytes])
		}
	}
	return name
}

// parsePart takes a prepared transaction's name apart: the transaction's gid and
// the word of the shard that decides it. Names that newGID and partName do not
// make are an error.
func parsePart(cluster, name string) (gid, decider string, err error) {
	rest, ours := strings.CutPrefix(name, prefixOf(cluster))
	words := strings.Split(rest, ":")
	// Anybody may prepare a transaction under any name.
	if !ours || len(words) != 3 || words[0] == "" || shardWord(strings.TrimPrefix(words[0], hashMark)) != strings.TrimPrefix(words[0], hashMark) {
		return "", "", fmt.Errorf("%q is not the name of a part", name)
	}
	if b, err := base32Text.DecodeString(words[1]); err != nil || len(b) != randBytes || base32Text.EncodeToString(b) != words[1] {
		return "", "", fmt.Errorf("%q is not the name of a part: %q is not what names a transaction", name, words[1])
	}
	if n, err := strconv.ParseUint(words[2], 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != words[2] {
		return "", "", fmt.Errorf("%q is not the name of a part: %q is no number", name, words[2])
	}
	return strings.TrimSuffix(name, ":"+words[2]), words[0], nil
}

// validCluster reports whether a cluster's ID is a UUID in text form.
func validCluster(id string) bool {
	return len(id) == idBytes && strings.Trim(id, "0123456789abcdef-") == ""
}

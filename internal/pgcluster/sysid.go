package pgcluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
)

// Where the system identifier is stored in the first page of every WAL
// segment: after magic, info, timeline, page address and remaining length of
// XLogPageHeaderData, padded to 24 bytes (src/include/access/xlog_internal.h).
const walSystemIDOffset = 24

// setSystemID gives a cleanly stopped data directory another system
// identifier. Without this all copies of the template would pass for servers
// of one cluster. The identifier stands in pg_control, guarded by a checksum,
// and in the head of every WAL segment, unguarded.
func setSystemID(dataDir string, id uint64) error {
	path := filepath.Join(dataDir, "global", "pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("set system identifier: %w", err)
	}
	old, err := replaceControlID(control, id)
	if err != nil {
		return fmt.Errorf("set system identifier: %w", err)
	}
	if err := patch(path, 0, control); err != nil {
		return fmt.Errorf("set system identifier: %w", err)
	}
	segments, err := walSegments(filepath.Join(dataDir, "pg_wal"))
	if err != nil {
		return fmt.Errorf("set system identifier: %w", err)
	}
	for _, segment := range segments {
		if err := replaceWALID(segment, old, id); err != nil {
			return fmt.Errorf("set system identifier: %w", err)
		}
	}
	return nil
}

// replaceControlID changes the identifier and the checksum in the bytes of
// pg_control and returns the old identifier. The checksum's place differs
// between versions: it is the word that is the checksum of all before it.
func replaceControlID(control []byte, id uint64) (old uint64, err error) {
	table := crc32.MakeTable(crc32.Castagnoli)
	for at := 8; at+4 <= len(control); at += 4 {
		if crc32.Checksum(control[:at], table) != binary.NativeEndian.Uint32(control[at:]) {
			continue
		}
		old = binary.NativeEndian.Uint64(control)
		binary.NativeEndian.PutUint64(control, id)
		binary.NativeEndian.PutUint32(control[at:], crc32.Checksum(control[:at], table))
		return old, nil
	}
	return 0, errors.New("pg_control has no valid checksum")
}

// replaceWALID changes the identifier in one WAL segment. Segments made in
// advance and never written have none yet.
func replaceWALID(path string, old, id uint64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [8]byte
	if _, err := f.ReadAt(head[:], walSystemIDOffset); err != nil {
		return err
	}
	switch binary.NativeEndian.Uint64(head[:]) {
	case old:
		binary.NativeEndian.PutUint64(head[:], id)
		return patch(path, walSystemIDOffset, head[:])
	case 0:
		return nil
	}
	return fmt.Errorf("%s: the page header holds no system identifier", filepath.Base(path))
}

// walSegments lists the segment files of a pg_wal folder: 24 hex digits each.
func walSegments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []string
	for _, e := range entries {
		if e.Type().IsRegular() && len(e.Name()) == 24 && !slices.ContainsFunc([]byte(e.Name()), notHex) {
			segments = append(segments, filepath.Join(dir, e.Name()))
		}
	}
	return segments, nil
}

func notHex(c byte) bool { return (c < '0' || c > '9') && (c < 'A' || c > 'F') }

// patch overwrites bytes of an existing file.
func patch(path string, at int64, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, at)
	return errors.Join(err, f.Close())
}

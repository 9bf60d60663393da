package archtest

import (
	"bytes"
	"fmt"
)

// maxFileBytes is the largest that a file of the repository may be: text that
// people wrote stays far below, programs and dumps far above.
const maxFileBytes = 256 << 10

// maxNameBytes keeps the paths readable, and short enough for archives.
const maxNameBytes = 200

// JudgeFile returns the offences of one file of the repository, whatever it
// holds, in words. content may be cut off behind maxFileBytes.
func JudgeFile(path string, size int64, content []byte) []string {
	var bad []string
	if size > maxFileBytes {
		bad = append(bad, fmt.Sprintf("%s: %d KiB, more than %d: what can be made again is not kept", path, size>>10, maxFileBytes>>10))
	}
	if bytes.IndexByte(content, 0) >= 0 {
		bad = append(bad, path+": a binary file: the repository holds what people can read")
	}
	if len(path) > maxNameBytes {
		bad = append(bad, fmt.Sprintf("%s: a path of %d bytes, more than %d", path, len(path), maxNameBytes))
	}
	return bad
}

package simulator

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	seeded "math/rand/v2"
	"sync"
	"time"
)

// Prefixes of UUIDs: the first byte tells the kind of resource, in every recording.
const (
	serverKind       byte = 0x00
	storageKind      byte = 0x01
	networkKind      byte = 0x03
	routerKind       byte = 0x04
	loadBalancerKind byte = 0x0a
	serverGroupKind  byte = 0x0b
)

// uuidSource is where the random bytes of UUIDs come from. The zero value gives others in every run.
type uuidSource struct {
	mu     sync.Mutex
	seeded io.Reader // nil: crypto/rand
}

// newUUIDSource is a source that gives the same bytes in every run, for a seed other than zero.
func newUUIDSource(seed uint64) *uuidSource {
	if seed == 0 {
		return &uuidSource{}
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &uuidSource{seeded: seeded.NewChaCha8(key)}
}

func (u *uuidSource) read(b []byte) {
	if u.seeded == nil {
		rand.Read(b) // never fails
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	_, _ = u.seeded.Read(b) // never fails
}

func (s *Simulator) newUUID(kind byte) string {
	var b [16]byte
	s.uuids.read(b[:])
	b[0] = kind
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// fixedUUID is the UUID of a resource of UpCloud's own, such as a public network: the same in every simulator.
func fixedUUID(kind byte, n int) string {
	return fmt.Sprintf("%02x000000-0000-4000-8%03x-%012x", kind, n, 0)
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
			continue
		}
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// correlationID is the ULID that the newer resources put into every problem.
func correlationID(now time.Time) string {
	var random [16]byte
	rand.Read(random[:])
	id := make([]byte, 26)
	ms := uint64(now.UnixMilli())
	for i := 9; i >= 0; i-- {
		id[i] = crockford[ms&31]
		ms >>= 5
	}
	for i := range random {
		id[10+i] = crockford[random[i]&31]
	}
	return string(id)
}

func timeOfMicroseconds(t time.Time) string {
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
}

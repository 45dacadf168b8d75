package simulator

import "strings"

// defaultLimits are so large that clients do not meet them by chance.
var defaultLimits = Limits{
	Cores: 200000, DetachedFloatingIPs: 100, LoadBalancers: 1000, ManagedObjectStorages: 20, Memory: 400 << 20,
	NetworkPeerings: 100, Networks: 10000, NTPExcessGiB: 20000, PublicIPv4: 100000, PublicIPv6: 100000,
	StorageHDD: 10 << 20, StorageMaxIOPS: 10 << 20, StorageSSD: 10 << 20,
}

// limits are the configured ones, or the defaults.
func (s *Simulator) limits() Limits {
	if s.cfg.Limits == nil {
		return defaultLimits
	}
	return *s.cfg.Limits
}

// ofTier returns the limit of a tier in GiB. The API calls that of the tier standard the limit of SSDs.
func (l *Limits) ofTier(tier string) int {
	switch tier {
	case "maxiops":
		return l.StorageMaxIOPS
	case "standard":
		return l.StorageSSD
	}
	return l.StorageHDD
}

// checkStorageLimit refuses storage of a tier that the account has no room for. Backups have no tier, and do not count.
func (s *Simulator) checkStorageLimit(tier string, more int) error {
	limits := s.limits()
	left := limits.ofTier(tier) - more
	for st := range s.storages.all() {
		if st.tier == tier && !st.public() {
			left -= st.size
		}
	}
	if left < 0 {
		return conflict(strings.ToUpper(tier)+"_STORAGE_LIMIT_REACHED",
			"The account may have %d GiB of the storage tier '%s', which %d GiB more would exceed.", limits.ofTier(tier), tier, more)
	}
	return nil
}

// checkServerLimits refuses a server, new or of another size, that the account has no room for.
func (s *Simulator) checkServerLimits(self *server, cores, memory int) error {
	limits := s.limits()
	for v := range s.servers.all() {
		if v != self {
			cores, memory = cores+v.cores, memory+v.memory
		}
	}
	if cores > limits.Cores {
		return conflict("SERVER_CORE_LIMIT_REACHED", "The account may have %d cores.", limits.Cores)
	}
	if memory > limits.Memory {
		return conflict("SERVER_MEMORY_LIMIT_REACHED", "The account may have %d MiB of memory.", limits.Memory)
	}
	return nil
}

// checkNetworkLimit refuses a private network more than the account may have.
func (s *Simulator) checkNetworkLimit() error {
	limits, own := s.limits(), 0
	for n := range s.networks.all() {
		if n.kind == networkPrivate {
			own++
		}
	}
	if own >= limits.Networks {
		return conflict("NETWORK_LIMIT_REACHED", "The account may have %d networks.", limits.Networks)
	}
	return nil
}

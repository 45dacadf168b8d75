package simulator

import (
	"fmt"
	"net/netip"
)

// zoneBits is how many bits of the public network tell the zone: sixteen zones.
const zoneBits = 4

// init makes what is there before the account makes anything: zones, their public and utility networks, the routers
// between the utility networks, templates and CD-ROMs.
func (st *state) init(public netip.Prefix) {
	st.zones = knownZones
	st.addresses = make(map[netip.Addr]*ipAddress)
	st.interfaces = make(map[string]*nic)
	st.nextMAC = 0x5c0000
	for i, z := range st.zones {
		st.initZone(i, z, public)
	}
	for _, t := range publicStorages {
		t.access, t.state = "public", storageOnline
		st.storages.put(t.uuid, &t)
	}
}

func (st *state) initZone(i int, z zone, public netip.Prefix) {
	v4 := subnet(public, zoneBits, i)
	st.putNetwork(fixedUUID(networkKind, 0xa00+i), "Public "+v4.String(), z.ID, networkPublic, "", ipNetwork{
		Address: v4.String(), DHCP: true, DHCPDefaultRoute: true, Family: familyIPv4, Gateway: v4.Addr().Next().String(),
		DHCPDNS: []string{"94.237.127.9", "94.237.40.9"},
	})
	v6 := netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/64", 0x100+i)) // set aside for documentation by RFC 3849
	st.putNetwork(fixedUUID(networkKind, 0xb00+i), "Public "+v6.String(), z.ID, networkPublic, "", ipNetwork{
		Address: v6.String(), DHCP: true, DHCPDefaultRoute: true, Family: familyIPv6, Gateway: v6.Addr().Next().String(),
		DHCPDNS: []string{"2a04:3540:53::1", "2a04:3544:53::1"},
	})
	r := &router{uuid: fixedUUID(routerKind, 0xc00+i), name: "Utility network router for zone " + z.ID, kind: "service"}
	st.routers.put(r.uuid, r)
	utility := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/19", i+1))
	st.putNetwork(fixedUUID(networkKind, 0xc00+i), "Private "+utility.String(), z.ID, networkUtility, r.uuid, ipNetwork{
		Address: utility.String(), DHCP: true, Family: familyIPv4, Gateway: utility.Addr().Next().String(),
		DHCPRoutes: []string{"10.0.0.0/8"},
	})
}

func (st *state) putNetwork(uuid, name, zone, kind, router string, ip ipNetwork) {
	ip.DHCPEffectiveRoutes, ip.DHCPRoutesConfiguration = []struct{}{}, &dhcpRouteConf{}
	st.networks.put(uuid, &network{
		uuid: uuid, name: name, zone: zone, kind: kind, router: router, ip: []ipNetwork{ip}, used: make(map[netip.Addr]bool),
	})
}

// subnet returns the i-th of the parts that a prefix has when it is extended by that many bits. IPv4 only.
func subnet(p netip.Prefix, bits, i int) netip.Prefix {
	length := p.Bits() + bits
	a := p.Masked().Addr().As4()
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	n |= uint32(i) << (32 - length)
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), length)
}

func osLabels(brand, version, kind string) []Label {
	return []Label{
		{"_os_architecture", "64"}, {"_os_brand_name", brand}, {"_os_brand_version", version},
		{"_os_main_category", "Linux"}, {"_os_type", kind},
	}
}

// publicStorages are UpCloud's templates and installation discs, those first that the SDK's live tests use.
var publicStorages = []storage{
	{uuid: "01000000-0000-4000-8000-000020060100", title: "Debian GNU/Linux 11 (Bullseye)", kind: kindTemplate, size: 3,
		tier:         "maxiops",
		templateType: "native", labels: osLabels("Debian", "11", "debian")},
	{uuid: "01000000-0000-4000-8000-000020070100", title: "Debian GNU/Linux 12 (Bookworm)", kind: kindTemplate, size: 3,
		tier:         "maxiops",
		templateType: "cloud-init", labels: osLabels("Debian", "12", "debian")},
	{uuid: "01000000-0000-4000-8000-000030220200", title: "Ubuntu Server 22.04 LTS (Jammy Jellyfish)",
		kind: kindTemplate, size: 4, tier: "maxiops",
		templateType: "cloud-init", labels: osLabels("Ubuntu", "22.04", "ubuntu")},
	{uuid: "01000000-0000-4000-8000-000030240200", title: "Ubuntu Server 24.04 LTS (Noble Numbat)", kind: kindTemplate,
		size: 4, tier: "maxiops",
		templateType: "cloud-init", labels: osLabels("Ubuntu", "24.04", "ubuntu")},
	{uuid: "01000000-0000-4000-8000-000020060101", title: "Debian GNU/Linux 11.0.0 (Bullseye) Installation CD",
		kind: kindCDROM, size: 1},
	{uuid: "01000000-0000-4000-8000-000030220101", title: "Ubuntu Server 22.04 LTS (Jammy Jellyfish) Installation CD",
		kind: kindCDROM, size: 2},
}

package simulator

import (
	"fmt"
	"os"
)

// routes are the operations of the API, with the status that the recordings show for each.
func (s *Simulator) routes() []route {
	older := []route{
		{operation: "GET /account", status: 200, serve: s.getAccount},
		{operation: "GET /zone", status: 200, serve: s.listZones},
		{operation: "GET /plan", status: 200, serve: s.listPlans},
		{operation: "GET /price", status: 200, serve: s.listPrices},
		{operation: "GET /timezone", status: 200, serve: s.listTimezones},
		{operation: "GET /server_size", status: 200, serve: s.listServerSizes},
		{operation: "GET /account/list", status: 200, serve: s.listAccounts},
		{operation: "GET /account/details/{username}", status: 200, serve: s.getAccountDetails},
		{operation: "POST /account/sub", status: 204, serve: s.createSubaccount},
		{operation: "PUT /account/sub/{username}", status: 204, serve: s.modifySubaccount},
		{operation: "DELETE /account/sub/{username}", status: 204, serve: s.deleteSubaccount},

		{operation: "GET /server", status: 200, serve: s.listServers},
		{operation: "POST /server", status: 202, serve: s.createServer},
		{operation: "GET /server/{uuid}", status: 200, serve: s.getServer},
		{operation: "PUT /server/{uuid}", status: 202, serve: s.modifyServer},
		{operation: "DELETE /server/{uuid}", status: 204, serve: s.deleteServer},
		{operation: "POST /server/{uuid}/start", status: 200, serve: s.startServer},
		{operation: "POST /server/{uuid}/stop", status: 200, serve: s.stopServer},
		{operation: "POST /server/{uuid}/restart", status: 200, serve: s.restartServer},
		{operation: "POST /server/{uuid}/relocate", status: 200, serve: s.relocateServer},
		{operation: "POST /server/{uuid}/tag/{tags}", status: 200, serve: s.tagServer},
		{operation: "POST /server/{uuid}/untag/{tags}", status: 200, serve: s.untagServer},
		{operation: "GET /server/{uuid}/firewall_rule", status: 200, serve: s.listFirewallRules},
		{operation: "POST /server/{uuid}/firewall_rule", status: 201, serve: s.createFirewallRule},
		{operation: "PUT /server/{uuid}/firewall_rule", status: 204, serve: s.replaceFirewallRules},
		{operation: "GET /server/{uuid}/firewall_rule/{position}", status: 200, serve: s.getFirewallRule},
		{operation: "DELETE /server/{uuid}/firewall_rule/{position}", status: 204, serve: s.deleteFirewallRule},
		{operation: "POST /server/{uuid}/storage/attach", status: 200, serve: s.attachStorage},
		{operation: "POST /server/{uuid}/storage/detach", status: 200, serve: s.detachStorage},
		{operation: "POST /server/{uuid}/cdrom/load", status: 200, serve: s.loadCDROM},
		{operation: "POST /server/{uuid}/cdrom/eject", status: 200, serve: s.ejectCDROM},
		{operation: "GET /server/{uuid}/networking", status: 200, serve: s.getNetworking},
		{operation: "POST /server/{uuid}/networking/interface", status: 201, serve: s.createInterface},
		{operation: "PUT /server/{uuid}/networking/interface/{index}", status: 200, serve: s.modifyInterface},
		{operation: "DELETE /server/{uuid}/networking/interface/{index}", status: 204, serve: s.deleteInterface},

		{operation: "GET /server-group", status: 200, serve: s.listServerGroups},
		{operation: "POST /server-group", status: 200, serve: s.createServerGroup},
		{operation: "GET /server-group/{uuid}", status: 200, serve: s.getServerGroup},
		{operation: "PATCH /server-group/{uuid}", status: 200, serve: s.modifyServerGroup},
		{operation: "DELETE /server-group/{uuid}", status: 204, serve: s.deleteServerGroup},
		{operation: "POST /server-group/{uuid}/servers", status: 204, serve: s.addGroupMember},
		{operation: "DELETE /server-group/{uuid}/servers/{server}", status: 204, serve: s.removeGroupMember},

		{operation: "GET /tag", status: 200, serve: s.listTags},
		{operation: "POST /tag", status: 200, serve: s.createTag},
		{operation: "PUT /tag/{tag}", status: 200, serve: s.modifyTag},
		{operation: "DELETE /tag/{tag}", status: 204, serve: s.deleteTag},

		{operation: "GET /storage", status: 200, serve: s.listStorages(func(*storage) bool { return true })},
		{operation: "GET /storage/private", status: 200, serve: s.listStorages(ofAccess("private"))},
		{operation: "GET /storage/public", status: 200, serve: s.listStorages(ofAccess("public"))},
		{operation: "GET /storage/normal", status: 200, serve: s.listStorages(ofKind(kindNormal))},
		{operation: "GET /storage/backup", status: 200, serve: s.listStorages(ofKind(kindBackup))},
		{operation: "GET /storage/cdrom", status: 200, serve: s.listStorages(ofKind(kindCDROM))},
		{operation: "GET /storage/template", status: 200, serve: s.listStorages(ofKind(kindTemplate))},
		{operation: "GET /storage/favorite", status: 200, serve: s.listStorages(func(st *storage) bool { return st.favorite })},
		{operation: "POST /storage", status: 201, serve: s.createStorage},
		{operation: "GET /storage/{uuid}", status: 200, serve: s.getStorage},
		{operation: "PUT /storage/{uuid}", status: 202, serve: s.modifyStorage},
		{operation: "DELETE /storage/{uuid}", status: 204, serve: s.deleteStorage},
		{operation: "POST /storage/{uuid}/clone", status: 201, serve: s.cloneStorage},
		{operation: "POST /storage/{uuid}/backup", status: 201, serve: s.backupStorage},
		{operation: "POST /storage/{uuid}/restore", status: 204, serve: s.restoreBackup},
		{operation: "POST /storage/{uuid}/templatize", status: 201, serve: s.templatizeStorage},
		{operation: "POST /storage/{uuid}/resize", status: 200, serve: s.resizeFilesystem},
		{operation: "POST /storage/{uuid}/import", status: 201, serve: s.createImport},
		{operation: "GET /storage/{uuid}/import", status: 200, serve: s.getImport},
		{operation: "DELETE /storage/{uuid}/import", status: 204, serve: s.cancelImport},
		{operation: "POST /storage/{uuid}/favorite", status: 204, serve: s.favorite(true)},
		{operation: "DELETE /storage/{uuid}/favorite", status: 204, serve: s.favorite(false)},

		{operation: "GET /network", status: 200, serve: s.listNetworks},
		{operation: "POST /network", status: 201, serve: s.createNetwork},
		{operation: "GET /network/{uuid}", status: 200, serve: s.getNetwork},
		{operation: "PUT /network/{uuid}", status: 200, serve: s.modifyNetwork},
		{operation: "DELETE /network/{uuid}", status: 204, serve: s.deleteNetwork},
		{operation: "GET /router", status: 200, serve: s.listRouters},
		{operation: "POST /router", status: 201, serve: s.createRouter},
		{operation: "GET /router/{uuid}", status: 200, serve: s.getRouter},
		{operation: "PATCH /router/{uuid}", status: 200, serve: s.modifyRouter},
		{operation: "DELETE /router/{uuid}", status: 204, serve: s.deleteRouter},

		{operation: "GET /ip_address", status: 200, serve: s.listAddresses},
		{operation: "POST /ip_address", status: 201, serve: s.createAddress},
		{operation: "GET /ip_address/{address}", status: 200, serve: s.getAddress},
		{operation: "PATCH /ip_address/{address}", status: 202, serve: s.modifyAddress},
		{operation: "DELETE /ip_address/{address}", status: 204, serve: s.deleteAddress},
	}
	newer := append(s.loadBalancerRoutes(), s.fileStorageRoutes()...)
	newer = append(newer, []route{
		{operation: "GET /account/tokens", status: 200, serve: s.listTokens},
		{operation: "POST /account/tokens", status: 201, serve: s.createToken},
		{operation: "GET /account/tokens/{id}", status: 200, serve: s.getToken},
		{operation: "DELETE /account/tokens/{id}", status: 204, serve: s.deleteToken},
	}...)
	for i := range newer {
		newer[i].problems = true
	}
	return append(older, newer...)
}

// favorite serves adding a storage to the user's favorites, and taking it out.
func (s *Simulator) favorite(yes bool) func(*call) (any, error) {
	return func(c *call) (any, error) {
		st, err := s.storage(c.path("uuid"))
		if err != nil {
			return nil, err
		}
		st.favorite = yes
		return nil, nil
	}
}

// reportPlane tells about a data plane's failure that no request waits for.
func (s *Simulator) reportPlane(what, uuid string, err error) {
	if err == nil {
		return
	}
	if s.cfg.ErrorLog != nil {
		s.cfg.ErrorLog(fmt.Errorf("%s %s: %w", what, uuid, err))
		return
	}
	fmt.Fprintf(os.Stderr, "simulator: %s %s: %v\n", what, uuid, err)
}

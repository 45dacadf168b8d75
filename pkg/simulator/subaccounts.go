package simulator

import (
	"encoding/json"
	"regexp"
	"slices"
)

// subaccount is another user of the account. The simulator keeps subaccounts; they cannot log in.
type subaccount struct {
	Address            string         `json:"address"`
	AllowAPI           yesNo          `json:"allow_api"`
	AllowGUI           yesNo          `json:"allow_gui"`
	Campaigns          campaignList   `json:"campaigns"`
	City               string         `json:"city"`
	Company            string         `json:"company"`
	Country            string         `json:"country"`
	Currency           string         `json:"currency"`
	Email              string         `json:"email"`
	ThirdPartyServices yesNo          `json:"enable_3rd_party_services"`
	FirstName          string         `json:"first_name"`
	IPFilters          ipFilterList   `json:"ip_filters"`
	Language           string         `json:"language"`
	LastName           string         `json:"last_name"`
	MainAccount        string         `json:"main_account,omitempty"`
	NetworkAccess      networkAccess  `json:"network_access"`
	Phone              string         `json:"phone"`
	PostalCode         string         `json:"postal_code"`
	Roles              roleList       `json:"roles"`
	ServerAccess       serverAccesses `json:"server_access"`
	State              string         `json:"state"`
	StorageAccess      storageAccess  `json:"storage_access"`
	TagAccess          tagAccesses    `json:"tag_access"`
	Timezone           string         `json:"timezone"`
	Type               string         `json:"type"`
	Username           string         `json:"username"`
	VATNumber          string         `json:"vat_number"`
}

type campaignList struct {
	Campaign []string `json:"campaign"`
}

type ipFilterList struct {
	IPFilter []string `json:"ip_filter"`
}

type networkAccess struct {
	Network []string `json:"network"`
}

type roleList struct {
	Role []string `json:"role"`
}

type serverAccesses struct {
	Server []serverAccess `json:"server"`
}

type serverAccess struct {
	Storage yesNo  `json:"storage"`
	UUID    string `json:"uuid"`
}

type storageAccess struct {
	Storage []string `json:"storage"`
}

type tagAccesses struct {
	Tag []tagAccess `json:"tag"`
}

type tagAccess struct {
	Name    string `json:"name"`
	Storage yesNo  `json:"storage"`
}

type accountDetailsAnswer struct {
	Account subaccount `json:"account"`
}

type accountEntry struct {
	Roles    roleList `json:"roles"`
	Type     string   `json:"type"`
	Username string   `json:"username"`
}

type accountListAnswer struct {
	Accounts struct {
		Account []accountEntry `json:"account"`
	} `json:"accounts"`
}

var usernamePattern = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

// none replaces lists that are null by empty ones: the API shows those.
func (a *subaccount) none() {
	a.Campaigns.Campaign = append([]string{}, a.Campaigns.Campaign...)
	a.IPFilters.IPFilter = append([]string{}, a.IPFilters.IPFilter...)
	a.NetworkAccess.Network = append([]string{}, a.NetworkAccess.Network...)
	a.Roles.Role = append([]string{}, a.Roles.Role...)
	a.ServerAccess.Server = append([]serverAccess{}, a.ServerAccess.Server...)
	a.StorageAccess.Storage = append([]string{}, a.StorageAccess.Storage...)
	a.TagAccess.Tag = append([]tagAccess{}, a.TagAccess.Tag...)
}

func (s *Simulator) mainUsername() string { return or(s.cfg.Username, DefaultUsername) }

func (s *Simulator) createSubaccount(c *call) (any, error) {
	var req struct {
		SubAccount struct {
			subaccount
			Password string `json:"password"`
		} `json:"sub_account"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	a := req.SubAccount.subaccount
	if !usernamePattern.MatchString(a.Username) {
		return nil, badRequest("INVALID_USERNAME", "The user name '%s' is not valid.", a.Username)
	}
	if _, taken := s.subaccounts.get(a.Username); taken || a.Username == s.mainUsername() {
		return nil, conflict("RESOURCE_ALREADY_EXISTS", "The user %s already exists.", a.Username)
	}
	if req.SubAccount.Password == "" {
		return nil, badRequest("VALIDATION_ERROR", "The required attribute 'password' is missing from the request.")
	}
	if err := s.checkAccess(&a); err != nil {
		return nil, err
	}
	a.MainAccount, a.Type, a.ThirdPartyServices = s.mainUsername(), "sub", true
	a.none()
	s.subaccounts.put(a.Username, &a)
	return nil, nil
}

func (s *Simulator) checkAccess(a *subaccount) error {
	for _, t := range a.TagAccess.Tag {
		if _, err := s.tag(t.Name); err != nil {
			return err
		}
	}
	known := []string{"billing", "aux_billing", "technical"}
	for _, role := range a.Roles.Role {
		if !slices.Contains(known, role) {
			return badRequest("VALIDATION_ERROR", "The role '%s' is not valid.", role)
		}
	}
	return nil
}

func (s *Simulator) subaccount(username string) (*subaccount, error) {
	a, ok := s.subaccounts.get(username)
	if !ok {
		return nil, notFound("USER_NOT_FOUND", "The user %s does not exist.", username)
	}
	return a, nil
}

func (s *Simulator) modifySubaccount(c *call) (any, error) {
	a, err := s.subaccount(c.path("username"))
	if err != nil {
		return nil, err
	}
	var req struct {
		Account json.RawMessage `json:"account"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	next := *a
	if err := json.Unmarshal(req.Account, &next); err != nil {
		return nil, badRequest("INVALID_REQUEST", "The request body is not valid: %v.", err)
	}
	if err := s.checkAccess(&next); err != nil {
		return nil, err
	}
	next.Username, next.MainAccount, next.Type = a.Username, a.MainAccount, a.Type
	next.none()
	*a = next
	return nil, nil
}

func (s *Simulator) deleteSubaccount(c *call) (any, error) {
	a, err := s.subaccount(c.path("username"))
	if err != nil {
		return nil, err
	}
	s.subaccounts.remove(a.Username)
	return nil, nil
}

func (s *Simulator) getAccountDetails(c *call) (any, error) {
	username := c.path("username")
	if username == s.mainUsername() {
		main := subaccount{
			AllowAPI: true, AllowGUI: true, Type: "main", Username: username, Timezone: "UTC", Language: "en", Currency: "EUR",
			ThirdPartyServices: true, Roles: roleList{[]string{"technical"}},
		}
		main.none()
		return accountDetailsAnswer{main}, nil
	}
	a, err := s.subaccount(username)
	if err != nil {
		return nil, err
	}
	return accountDetailsAnswer{*a}, nil
}

func (s *Simulator) listAccounts(*call) (any, error) {
	var out accountListAnswer
	out.Accounts.Account = []accountEntry{{roleList{[]string{"technical"}}, "main", s.mainUsername()}}
	for a := range s.subaccounts.all() {
		out.Accounts.Account = append(out.Accounts.Account, accountEntry{a.Roles, a.Type, a.Username})
	}
	return out, nil
}

"""What a key says of the value under it: names that sites and people give to secrets, cards, papers and identifiers."""

from __future__ import annotations

from typing import Final

_CREDENTIALS: Final = """
password passwd pwd passphrase passcode userpassword newpassword oldpassword currentpassword passwordconfirmation
confirmpassword secret clientsecret sharedsecret appsecret apisecret apikey secretkey privatekey accesskey writekey
token accesstoken refreshtoken idtoken authtoken apitoken sessiontoken bearertoken csrftoken jwt bearer credential
credentials authorization proxyauthorization xapikey cookie setcookie otp onetimepassword mfacode
"""
_PAYMENT: Final = """
card cardnumber cardno cardnum creditcard creditcardnumber debitcard debitcardnumber ccnumber ccnum ccno pan cvv cvv2
cvc cvc2 csc cardcvv cardcvc securitycode cardsecuritycode iban bankaccount bankaccountnumber accountnumber
routingnumber sortcode
"""
_OFFICIAL: Final = """
ssn socialsecurity socialsecuritynumber nationalid nationalidnumber passport passportnumber driverslicense
driverlicense driverslicensenumber taxid nationalinsurancenumber
"""
FORBIDDEN: Final = frozenset((_CREDENTIALS + _PAYMENT + _OFFICIAL).split())
# Identifiers that a dialect did not take. Bare digits and names have no shape by which to find them, so their key must do;
# a yes or no under it ("email": true) is no identifier.
_PEOPLE: Final = """
email emailaddress mail useremail customeremail emailid phone phonenumber telephone telephonenumber tel mobile
mobilephone mobilenumber cellphone msisdn whatsapp firstname lastname surname familyname givenname fullname middlename
birthdate birthday dateofbirth dob street streetaddress addressline1 addressline2 address1 address2
"""
# An event's own address and agent are lifted out before (``router.door``); whatever stands deeper is nobody's to keep.
_VISITOR: Final = """
ip ipaddress userip visitorip clientip clientipaddress remoteip remoteaddr remoteaddress ipoverride
useragent clientuseragent
"""
PERSONAL: Final = frozenset((_PEOPLE + _VISITOR).split())


def folded(name: str) -> str:
    """Without case and separators: ``card-number``, ``Card_Number`` and ``cardNumber`` are one."""
    return "".join(filter(str.isalnum, name)).lower()

"""What a key says of the value under it: names that sites give to secrets, cards, papers and a visitor's address.

Words for a person are ``persons``'s.
"""

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
# An event's own address and agent are lifted out before (``router.door``); whatever stands deeper is nobody's to keep.
_VISITOR: Final = """
ip ipaddress userip visitorip clientip clientipaddress remoteip remoteaddr remoteaddress ipoverride
useragent clientuseragent
"""
VISITOR: Final = frozenset(_VISITOR.split())


def folded(name: str) -> str:
    """Without case and separators: ``card-number``, ``Card_Number`` and ``cardNumber`` are one."""
    return (name if name.isalnum() else "".join(filter(str.isalnum, name))).lower()

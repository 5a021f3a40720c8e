//! The instruction table: one line a vector instruction, one column an encoding.
//!
//! ```text
//! Name:   VEX.128   VEX.256   EVEX.128   EVEX.256   EVEX.512
//! ```
//!
//! A name says the operation and the element (`Ps`, `Pd`: floats of 32 and 64 bits; `B W D Q`: integers of 8 to 64). AVX2 code
//! uses the first two columns; AVX-512 code the last three, for registers 16 to 31 exist in EVEX only. `INVALID` says
//! that there is no such form: selection asks [`VecOp::has`] or knows. In the codes' own names `k1z` is a write mask, `bNN` an
//! embedded broadcast of NN bits, `_er` and `_sae` rounding control, none of which needs to be used.
//! Source: Intel SDM volume 2; the codes are iced-x86's.

use super::inst::Width;
use iced_x86::Code::{self, *};

macro_rules! table {
    ($($name:ident: $x:ident $y:ident $ex:ident $ey:ident $ez:ident;)*) => {
        /// A vector instruction, its width left open.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are the table's")]
        pub enum VecOp { $($name,)* }

        impl VecOp {
            fn row(self) -> [Code; 5] {
                match self { $(VecOp::$name => [$x, $y, $ex, $ey, $ez],)* }
            }
        }
    };
}

impl VecOp {
    /// The encoding of a width, with EVEX where `evex`.
    pub fn code(self, width: Width, evex: bool) -> Code {
        let row = self.row();
        match (width, evex) {
            (Width::X, false) => row[0],
            (Width::Y, false) => row[1],
            (Width::X, true) => row[2],
            (Width::Y, true) => row[3],
            (Width::Z, _) => row[4],
        }
    }

    /// Whether there is such an encoding.
    pub fn has(self, width: Width, evex: bool) -> bool {
        self.code(width, evex) != INVALID
    }
}

table! {
    AddPs:         VEX_Vaddps_xmm_xmm_xmmm128        VEX_Vaddps_ymm_ymm_ymmm256        EVEX_Vaddps_xmm_k1z_xmm_xmmm128b32       EVEX_Vaddps_ymm_k1z_ymm_ymmm256b32       EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er;
    SubPs:         VEX_Vsubps_xmm_xmm_xmmm128        VEX_Vsubps_ymm_ymm_ymmm256        EVEX_Vsubps_xmm_k1z_xmm_xmmm128b32       EVEX_Vsubps_ymm_k1z_ymm_ymmm256b32       EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er;
    MulPs:         VEX_Vmulps_xmm_xmm_xmmm128        VEX_Vmulps_ymm_ymm_ymmm256        EVEX_Vmulps_xmm_k1z_xmm_xmmm128b32       EVEX_Vmulps_ymm_k1z_ymm_ymmm256b32       EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er;
    DivPs:         VEX_Vdivps_xmm_xmm_xmmm128        VEX_Vdivps_ymm_ymm_ymmm256        EVEX_Vdivps_xmm_k1z_xmm_xmmm128b32       EVEX_Vdivps_ymm_k1z_ymm_ymmm256b32       EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er;
    MinPs:         VEX_Vminps_xmm_xmm_xmmm128        VEX_Vminps_ymm_ymm_ymmm256        EVEX_Vminps_xmm_k1z_xmm_xmmm128b32       EVEX_Vminps_ymm_k1z_ymm_ymmm256b32       EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae;
    MaxPs:         VEX_Vmaxps_xmm_xmm_xmmm128        VEX_Vmaxps_ymm_ymm_ymmm256        EVEX_Vmaxps_xmm_k1z_xmm_xmmm128b32       EVEX_Vmaxps_ymm_k1z_ymm_ymmm256b32       EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae;
    SqrtPs:        VEX_Vsqrtps_xmm_xmmm128           VEX_Vsqrtps_ymm_ymmm256           EVEX_Vsqrtps_xmm_k1z_xmmm128b32          EVEX_Vsqrtps_ymm_k1z_ymmm256b32          EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er;
    Fmadd132Ps:    VEX_Vfmadd132ps_xmm_xmm_xmmm128   VEX_Vfmadd132ps_ymm_ymm_ymmm256   EVEX_Vfmadd132ps_xmm_k1z_xmm_xmmm128b32  EVEX_Vfmadd132ps_ymm_k1z_ymm_ymmm256b32  EVEX_Vfmadd132ps_zmm_k1z_zmm_zmmm512b32_er;
    Fmadd213Ps:    VEX_Vfmadd213ps_xmm_xmm_xmmm128   VEX_Vfmadd213ps_ymm_ymm_ymmm256   EVEX_Vfmadd213ps_xmm_k1z_xmm_xmmm128b32  EVEX_Vfmadd213ps_ymm_k1z_ymm_ymmm256b32  EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er;
    Fmadd231Ps:    VEX_Vfmadd231ps_xmm_xmm_xmmm128   VEX_Vfmadd231ps_ymm_ymm_ymmm256   EVEX_Vfmadd231ps_xmm_k1z_xmm_xmmm128b32  EVEX_Vfmadd231ps_ymm_k1z_ymm_ymmm256b32  EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er;
    CmpVPs:        VEX_Vcmpps_xmm_xmm_xmmm128_imm8   VEX_Vcmpps_ymm_ymm_ymmm256_imm8   INVALID                                  INVALID                                  INVALID;
    CmpKPs:        INVALID                           INVALID                           EVEX_Vcmpps_kr_k1_xmm_xmmm128b32_imm8    EVEX_Vcmpps_kr_k1_ymm_ymmm256b32_imm8    EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae;
    RoundPs:       VEX_Vroundps_xmm_xmmm128_imm8     VEX_Vroundps_ymm_ymmm256_imm8     INVALID                                  INVALID                                  INVALID;
    RndScalePs:    INVALID                           INVALID                           EVEX_Vrndscaleps_xmm_k1z_xmmm128b32_imm8 EVEX_Vrndscaleps_ymm_k1z_ymmm256b32_imm8 EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae;
    BlendVPs:      VEX_Vblendvps_xmm_xmm_xmmm128_xmm VEX_Vblendvps_ymm_ymm_ymmm256_ymm INVALID                                  INVALID                                  INVALID;
    BlendMPs:      INVALID                           INVALID                           EVEX_Vblendmps_xmm_k1z_xmm_xmmm128b32    EVEX_Vblendmps_ymm_k1z_ymm_ymmm256b32    EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32;
    PermIlPs:      VEX_Vpermilps_xmm_xmm_xmmm128     VEX_Vpermilps_ymm_ymm_ymmm256     EVEX_Vpermilps_xmm_k1z_xmm_xmmm128b32    EVEX_Vpermilps_ymm_k1z_ymm_ymmm256b32    EVEX_Vpermilps_zmm_k1z_zmm_zmmm512b32;
    MovMskPs:      VEX_Vmovmskps_r32_xmm             VEX_Vmovmskps_r32_ymm             INVALID                                  INVALID                                  INVALID;
    MaskLoadPs:    VEX_Vmaskmovps_xmm_xmm_m128       VEX_Vmaskmovps_ymm_ymm_m256       INVALID                                  INVALID                                  INVALID;
    MaskStorePs:   VEX_Vmaskmovps_m128_xmm_xmm       VEX_Vmaskmovps_m256_ymm_ymm       INVALID                                  INVALID                                  INVALID;
    PermT2Ps:      INVALID                           INVALID                           EVEX_Vpermt2ps_xmm_k1z_xmm_xmmm128b32    EVEX_Vpermt2ps_ymm_k1z_ymm_ymmm256b32    EVEX_Vpermt2ps_zmm_k1z_zmm_zmmm512b32;
    UnpckLPs:      VEX_Vunpcklps_xmm_xmm_xmmm128     VEX_Vunpcklps_ymm_ymm_ymmm256     EVEX_Vunpcklps_xmm_k1z_xmm_xmmm128b32    EVEX_Vunpcklps_ymm_k1z_ymm_ymmm256b32    EVEX_Vunpcklps_zmm_k1z_zmm_zmmm512b32;
    UnpckHPs:      VEX_Vunpckhps_xmm_xmm_xmmm128     VEX_Vunpckhps_ymm_ymm_ymmm256     EVEX_Vunpckhps_xmm_k1z_xmm_xmmm128b32    EVEX_Vunpckhps_ymm_k1z_ymm_ymmm256b32    EVEX_Vunpckhps_zmm_k1z_zmm_zmmm512b32;
    AddPd:         VEX_Vaddpd_xmm_xmm_xmmm128        VEX_Vaddpd_ymm_ymm_ymmm256        EVEX_Vaddpd_xmm_k1z_xmm_xmmm128b64       EVEX_Vaddpd_ymm_k1z_ymm_ymmm256b64       EVEX_Vaddpd_zmm_k1z_zmm_zmmm512b64_er;
    SubPd:         VEX_Vsubpd_xmm_xmm_xmmm128        VEX_Vsubpd_ymm_ymm_ymmm256        EVEX_Vsubpd_xmm_k1z_xmm_xmmm128b64       EVEX_Vsubpd_ymm_k1z_ymm_ymmm256b64       EVEX_Vsubpd_zmm_k1z_zmm_zmmm512b64_er;
    MulPd:         VEX_Vmulpd_xmm_xmm_xmmm128        VEX_Vmulpd_ymm_ymm_ymmm256        EVEX_Vmulpd_xmm_k1z_xmm_xmmm128b64       EVEX_Vmulpd_ymm_k1z_ymm_ymmm256b64       EVEX_Vmulpd_zmm_k1z_zmm_zmmm512b64_er;
    DivPd:         VEX_Vdivpd_xmm_xmm_xmmm128        VEX_Vdivpd_ymm_ymm_ymmm256        EVEX_Vdivpd_xmm_k1z_xmm_xmmm128b64       EVEX_Vdivpd_ymm_k1z_ymm_ymmm256b64       EVEX_Vdivpd_zmm_k1z_zmm_zmmm512b64_er;
    MinPd:         VEX_Vminpd_xmm_xmm_xmmm128        VEX_Vminpd_ymm_ymm_ymmm256        EVEX_Vminpd_xmm_k1z_xmm_xmmm128b64       EVEX_Vminpd_ymm_k1z_ymm_ymmm256b64       EVEX_Vminpd_zmm_k1z_zmm_zmmm512b64_sae;
    MaxPd:         VEX_Vmaxpd_xmm_xmm_xmmm128        VEX_Vmaxpd_ymm_ymm_ymmm256        EVEX_Vmaxpd_xmm_k1z_xmm_xmmm128b64       EVEX_Vmaxpd_ymm_k1z_ymm_ymmm256b64       EVEX_Vmaxpd_zmm_k1z_zmm_zmmm512b64_sae;
    SqrtPd:        VEX_Vsqrtpd_xmm_xmmm128           VEX_Vsqrtpd_ymm_ymmm256           EVEX_Vsqrtpd_xmm_k1z_xmmm128b64          EVEX_Vsqrtpd_ymm_k1z_ymmm256b64          EVEX_Vsqrtpd_zmm_k1z_zmmm512b64_er;
    Fmadd132Pd:    VEX_Vfmadd132pd_xmm_xmm_xmmm128   VEX_Vfmadd132pd_ymm_ymm_ymmm256   EVEX_Vfmadd132pd_xmm_k1z_xmm_xmmm128b64  EVEX_Vfmadd132pd_ymm_k1z_ymm_ymmm256b64  EVEX_Vfmadd132pd_zmm_k1z_zmm_zmmm512b64_er;
    Fmadd213Pd:    VEX_Vfmadd213pd_xmm_xmm_xmmm128   VEX_Vfmadd213pd_ymm_ymm_ymmm256   EVEX_Vfmadd213pd_xmm_k1z_xmm_xmmm128b64  EVEX_Vfmadd213pd_ymm_k1z_ymm_ymmm256b64  EVEX_Vfmadd213pd_zmm_k1z_zmm_zmmm512b64_er;
    Fmadd231Pd:    VEX_Vfmadd231pd_xmm_xmm_xmmm128   VEX_Vfmadd231pd_ymm_ymm_ymmm256   EVEX_Vfmadd231pd_xmm_k1z_xmm_xmmm128b64  EVEX_Vfmadd231pd_ymm_k1z_ymm_ymmm256b64  EVEX_Vfmadd231pd_zmm_k1z_zmm_zmmm512b64_er;
    CmpVPd:        VEX_Vcmppd_xmm_xmm_xmmm128_imm8   VEX_Vcmppd_ymm_ymm_ymmm256_imm8   INVALID                                  INVALID                                  INVALID;
    CmpKPd:        INVALID                           INVALID                           EVEX_Vcmppd_kr_k1_xmm_xmmm128b64_imm8    EVEX_Vcmppd_kr_k1_ymm_ymmm256b64_imm8    EVEX_Vcmppd_kr_k1_zmm_zmmm512b64_imm8_sae;
    RoundPd:       VEX_Vroundpd_xmm_xmmm128_imm8     VEX_Vroundpd_ymm_ymmm256_imm8     INVALID                                  INVALID                                  INVALID;
    RndScalePd:    INVALID                           INVALID                           EVEX_Vrndscalepd_xmm_k1z_xmmm128b64_imm8 EVEX_Vrndscalepd_ymm_k1z_ymmm256b64_imm8 EVEX_Vrndscalepd_zmm_k1z_zmmm512b64_imm8_sae;
    BlendVPd:      VEX_Vblendvpd_xmm_xmm_xmmm128_xmm VEX_Vblendvpd_ymm_ymm_ymmm256_ymm INVALID                                  INVALID                                  INVALID;
    BlendMPd:      INVALID                           INVALID                           EVEX_Vblendmpd_xmm_k1z_xmm_xmmm128b64    EVEX_Vblendmpd_ymm_k1z_ymm_ymmm256b64    EVEX_Vblendmpd_zmm_k1z_zmm_zmmm512b64;
    PermIlPd:      VEX_Vpermilpd_xmm_xmm_xmmm128     VEX_Vpermilpd_ymm_ymm_ymmm256     EVEX_Vpermilpd_xmm_k1z_xmm_xmmm128b64    EVEX_Vpermilpd_ymm_k1z_ymm_ymmm256b64    EVEX_Vpermilpd_zmm_k1z_zmm_zmmm512b64;
    MovMskPd:      VEX_Vmovmskpd_r32_xmm             VEX_Vmovmskpd_r32_ymm             INVALID                                  INVALID                                  INVALID;
    MaskLoadPd:    VEX_Vmaskmovpd_xmm_xmm_m128       VEX_Vmaskmovpd_ymm_ymm_m256       INVALID                                  INVALID                                  INVALID;
    MaskStorePd:   VEX_Vmaskmovpd_m128_xmm_xmm       VEX_Vmaskmovpd_m256_ymm_ymm       INVALID                                  INVALID                                  INVALID;
    PermT2Pd:      INVALID                           INVALID                           EVEX_Vpermt2pd_xmm_k1z_xmm_xmmm128b64    EVEX_Vpermt2pd_ymm_k1z_ymm_ymmm256b64    EVEX_Vpermt2pd_zmm_k1z_zmm_zmmm512b64;
    UnpckLPd:      VEX_Vunpcklpd_xmm_xmm_xmmm128     VEX_Vunpcklpd_ymm_ymm_ymmm256     EVEX_Vunpcklpd_xmm_k1z_xmm_xmmm128b64    EVEX_Vunpcklpd_ymm_k1z_ymm_ymmm256b64    EVEX_Vunpcklpd_zmm_k1z_zmm_zmmm512b64;
    UnpckHPd:      VEX_Vunpckhpd_xmm_xmm_xmmm128     VEX_Vunpckhpd_ymm_ymm_ymmm256     EVEX_Vunpckhpd_xmm_k1z_xmm_xmmm128b64    EVEX_Vunpckhpd_ymm_k1z_ymm_ymmm256b64    EVEX_Vunpckhpd_zmm_k1z_zmm_zmmm512b64;
    PermPs:        INVALID                           VEX_Vpermps_ymm_ymm_ymmm256       INVALID                                  EVEX_Vpermps_ymm_k1z_ymm_ymmm256b32      EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32;
    LoadU:         VEX_Vmovups_xmm_xmmm128           VEX_Vmovups_ymm_ymmm256           EVEX_Vmovups_xmm_k1z_xmmm128             EVEX_Vmovups_ymm_k1z_ymmm256             EVEX_Vmovups_zmm_k1z_zmmm512;
    StoreU:        VEX_Vmovups_xmmm128_xmm           VEX_Vmovups_ymmm256_ymm           EVEX_Vmovups_xmmm128_k1z_xmm             EVEX_Vmovups_ymmm256_k1z_ymm             EVEX_Vmovups_zmmm512_k1z_zmm;
    BroadcastSs:   VEX_Vbroadcastss_xmm_m32          VEX_Vbroadcastss_ymm_m32          EVEX_Vbroadcastss_xmm_k1z_xmmm32         EVEX_Vbroadcastss_ymm_k1z_xmmm32         EVEX_Vbroadcastss_zmm_k1z_xmmm32;
    BroadcastSd:   INVALID                           VEX_Vbroadcastsd_ymm_m64          INVALID                                  EVEX_Vbroadcastsd_ymm_k1z_xmmm64         EVEX_Vbroadcastsd_zmm_k1z_xmmm64;
    BroadcastB:    VEX_Vpbroadcastb_xmm_xmmm8        VEX_Vpbroadcastb_ymm_xmmm8        EVEX_Vpbroadcastb_xmm_k1z_xmmm8          EVEX_Vpbroadcastb_ymm_k1z_xmmm8          EVEX_Vpbroadcastb_zmm_k1z_xmmm8;
    BroadcastGprB: INVALID                           INVALID                           EVEX_Vpbroadcastb_xmm_k1z_r32            EVEX_Vpbroadcastb_ymm_k1z_r32            EVEX_Vpbroadcastb_zmm_k1z_r32;
    PAddB:         VEX_Vpaddb_xmm_xmm_xmmm128        VEX_Vpaddb_ymm_ymm_ymmm256        EVEX_Vpaddb_xmm_k1z_xmm_xmmm128          EVEX_Vpaddb_ymm_k1z_ymm_ymmm256          EVEX_Vpaddb_zmm_k1z_zmm_zmmm512;
    PSubB:         VEX_Vpsubb_xmm_xmm_xmmm128        VEX_Vpsubb_ymm_ymm_ymmm256        EVEX_Vpsubb_xmm_k1z_xmm_xmmm128          EVEX_Vpsubb_ymm_k1z_ymm_ymmm256          EVEX_Vpsubb_zmm_k1z_zmm_zmmm512;
    PCmpEqB:       VEX_Vpcmpeqb_xmm_xmm_xmmm128      VEX_Vpcmpeqb_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    PCmpGtB:       VEX_Vpcmpgtb_xmm_xmm_xmmm128      VEX_Vpcmpgtb_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    CmpKB:         INVALID                           INVALID                           EVEX_Vpcmpb_kr_k1_xmm_xmmm128_imm8       EVEX_Vpcmpb_kr_k1_ymm_ymmm256_imm8       EVEX_Vpcmpb_kr_k1_zmm_zmmm512_imm8;
    CmpKUB:        INVALID                           INVALID                           EVEX_Vpcmpub_kr_k1_xmm_xmmm128_imm8      EVEX_Vpcmpub_kr_k1_ymm_ymmm256_imm8      EVEX_Vpcmpub_kr_k1_zmm_zmmm512_imm8;
    BlendMB:       INVALID                           INVALID                           EVEX_Vpblendmb_xmm_k1z_xmm_xmmm128       EVEX_Vpblendmb_ymm_k1z_ymm_ymmm256       EVEX_Vpblendmb_zmm_k1z_zmm_zmmm512;
    PMinsB:        VEX_Vpminsb_xmm_xmm_xmmm128       VEX_Vpminsb_ymm_ymm_ymmm256       EVEX_Vpminsb_xmm_k1z_xmm_xmmm128         EVEX_Vpminsb_ymm_k1z_ymm_ymmm256         EVEX_Vpminsb_zmm_k1z_zmm_zmmm512;
    PMaxsB:        VEX_Vpmaxsb_xmm_xmm_xmmm128       VEX_Vpmaxsb_ymm_ymm_ymmm256       EVEX_Vpmaxsb_xmm_k1z_xmm_xmmm128         EVEX_Vpmaxsb_ymm_k1z_ymm_ymmm256         EVEX_Vpmaxsb_zmm_k1z_zmm_zmmm512;
    PMinuB:        VEX_Vpminub_xmm_xmm_xmmm128       VEX_Vpminub_ymm_ymm_ymmm256       EVEX_Vpminub_xmm_k1z_xmm_xmmm128         EVEX_Vpminub_ymm_k1z_ymm_ymmm256         EVEX_Vpminub_zmm_k1z_zmm_zmmm512;
    PMaxuB:        VEX_Vpmaxub_xmm_xmm_xmmm128       VEX_Vpmaxub_ymm_ymm_ymmm256       EVEX_Vpmaxub_xmm_k1z_xmm_xmmm128         EVEX_Vpmaxub_ymm_k1z_ymm_ymmm256         EVEX_Vpmaxub_zmm_k1z_zmm_zmmm512;
    MaskToVecB:    INVALID                           INVALID                           EVEX_Vpmovm2b_xmm_kr                     EVEX_Vpmovm2b_ymm_kr                     EVEX_Vpmovm2b_zmm_kr;
    BroadcastW:    VEX_Vpbroadcastw_xmm_xmmm16       VEX_Vpbroadcastw_ymm_xmmm16       EVEX_Vpbroadcastw_xmm_k1z_xmmm16         EVEX_Vpbroadcastw_ymm_k1z_xmmm16         EVEX_Vpbroadcastw_zmm_k1z_xmmm16;
    BroadcastGprW: INVALID                           INVALID                           EVEX_Vpbroadcastw_xmm_k1z_r32            EVEX_Vpbroadcastw_ymm_k1z_r32            EVEX_Vpbroadcastw_zmm_k1z_r32;
    PAddW:         VEX_Vpaddw_xmm_xmm_xmmm128        VEX_Vpaddw_ymm_ymm_ymmm256        EVEX_Vpaddw_xmm_k1z_xmm_xmmm128          EVEX_Vpaddw_ymm_k1z_ymm_ymmm256          EVEX_Vpaddw_zmm_k1z_zmm_zmmm512;
    PSubW:         VEX_Vpsubw_xmm_xmm_xmmm128        VEX_Vpsubw_ymm_ymm_ymmm256        EVEX_Vpsubw_xmm_k1z_xmm_xmmm128          EVEX_Vpsubw_ymm_k1z_ymm_ymmm256          EVEX_Vpsubw_zmm_k1z_zmm_zmmm512;
    PCmpEqW:       VEX_Vpcmpeqw_xmm_xmm_xmmm128      VEX_Vpcmpeqw_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    PCmpGtW:       VEX_Vpcmpgtw_xmm_xmm_xmmm128      VEX_Vpcmpgtw_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    CmpKW:         INVALID                           INVALID                           EVEX_Vpcmpw_kr_k1_xmm_xmmm128_imm8       EVEX_Vpcmpw_kr_k1_ymm_ymmm256_imm8       EVEX_Vpcmpw_kr_k1_zmm_zmmm512_imm8;
    CmpKUW:        INVALID                           INVALID                           EVEX_Vpcmpuw_kr_k1_xmm_xmmm128_imm8      EVEX_Vpcmpuw_kr_k1_ymm_ymmm256_imm8      EVEX_Vpcmpuw_kr_k1_zmm_zmmm512_imm8;
    BlendMW:       INVALID                           INVALID                           EVEX_Vpblendmw_xmm_k1z_xmm_xmmm128       EVEX_Vpblendmw_ymm_k1z_ymm_ymmm256       EVEX_Vpblendmw_zmm_k1z_zmm_zmmm512;
    PMinsW:        VEX_Vpminsw_xmm_xmm_xmmm128       VEX_Vpminsw_ymm_ymm_ymmm256       EVEX_Vpminsw_xmm_k1z_xmm_xmmm128         EVEX_Vpminsw_ymm_k1z_ymm_ymmm256         EVEX_Vpminsw_zmm_k1z_zmm_zmmm512;
    PMaxsW:        VEX_Vpmaxsw_xmm_xmm_xmmm128       VEX_Vpmaxsw_ymm_ymm_ymmm256       EVEX_Vpmaxsw_xmm_k1z_xmm_xmmm128         EVEX_Vpmaxsw_ymm_k1z_ymm_ymmm256         EVEX_Vpmaxsw_zmm_k1z_zmm_zmmm512;
    PMinuW:        VEX_Vpminuw_xmm_xmm_xmmm128       VEX_Vpminuw_ymm_ymm_ymmm256       EVEX_Vpminuw_xmm_k1z_xmm_xmmm128         EVEX_Vpminuw_ymm_k1z_ymm_ymmm256         EVEX_Vpminuw_zmm_k1z_zmm_zmmm512;
    PMaxuW:        VEX_Vpmaxuw_xmm_xmm_xmmm128       VEX_Vpmaxuw_ymm_ymm_ymmm256       EVEX_Vpmaxuw_xmm_k1z_xmm_xmmm128         EVEX_Vpmaxuw_ymm_k1z_ymm_ymmm256         EVEX_Vpmaxuw_zmm_k1z_zmm_zmmm512;
    MaskToVecW:    INVALID                           INVALID                           EVEX_Vpmovm2w_xmm_kr                     EVEX_Vpmovm2w_ymm_kr                     EVEX_Vpmovm2w_zmm_kr;
    BroadcastD:    VEX_Vpbroadcastd_xmm_xmmm32       VEX_Vpbroadcastd_ymm_xmmm32       EVEX_Vpbroadcastd_xmm_k1z_xmmm32         EVEX_Vpbroadcastd_ymm_k1z_xmmm32         EVEX_Vpbroadcastd_zmm_k1z_xmmm32;
    BroadcastGprD: INVALID                           INVALID                           EVEX_Vpbroadcastd_xmm_k1z_r32            EVEX_Vpbroadcastd_ymm_k1z_r32            EVEX_Vpbroadcastd_zmm_k1z_r32;
    PAddD:         VEX_Vpaddd_xmm_xmm_xmmm128        VEX_Vpaddd_ymm_ymm_ymmm256        EVEX_Vpaddd_xmm_k1z_xmm_xmmm128b32       EVEX_Vpaddd_ymm_k1z_ymm_ymmm256b32       EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32;
    PSubD:         VEX_Vpsubd_xmm_xmm_xmmm128        VEX_Vpsubd_ymm_ymm_ymmm256        EVEX_Vpsubd_xmm_k1z_xmm_xmmm128b32       EVEX_Vpsubd_ymm_k1z_ymm_ymmm256b32       EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32;
    PCmpEqD:       VEX_Vpcmpeqd_xmm_xmm_xmmm128      VEX_Vpcmpeqd_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    PCmpGtD:       VEX_Vpcmpgtd_xmm_xmm_xmmm128      VEX_Vpcmpgtd_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    CmpKD:         INVALID                           INVALID                           EVEX_Vpcmpd_kr_k1_xmm_xmmm128b32_imm8    EVEX_Vpcmpd_kr_k1_ymm_ymmm256b32_imm8    EVEX_Vpcmpd_kr_k1_zmm_zmmm512b32_imm8;
    CmpKUD:        INVALID                           INVALID                           EVEX_Vpcmpud_kr_k1_xmm_xmmm128b32_imm8   EVEX_Vpcmpud_kr_k1_ymm_ymmm256b32_imm8   EVEX_Vpcmpud_kr_k1_zmm_zmmm512b32_imm8;
    BlendMD:       INVALID                           INVALID                           EVEX_Vpblendmd_xmm_k1z_xmm_xmmm128b32    EVEX_Vpblendmd_ymm_k1z_ymm_ymmm256b32    EVEX_Vpblendmd_zmm_k1z_zmm_zmmm512b32;
    PMinsD:        VEX_Vpminsd_xmm_xmm_xmmm128       VEX_Vpminsd_ymm_ymm_ymmm256       EVEX_Vpminsd_xmm_k1z_xmm_xmmm128b32      EVEX_Vpminsd_ymm_k1z_ymm_ymmm256b32      EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32;
    PMaxsD:        VEX_Vpmaxsd_xmm_xmm_xmmm128       VEX_Vpmaxsd_ymm_ymm_ymmm256       EVEX_Vpmaxsd_xmm_k1z_xmm_xmmm128b32      EVEX_Vpmaxsd_ymm_k1z_ymm_ymmm256b32      EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32;
    PMinuD:        VEX_Vpminud_xmm_xmm_xmmm128       VEX_Vpminud_ymm_ymm_ymmm256       EVEX_Vpminud_xmm_k1z_xmm_xmmm128b32      EVEX_Vpminud_ymm_k1z_ymm_ymmm256b32      EVEX_Vpminud_zmm_k1z_zmm_zmmm512b32;
    PMaxuD:        VEX_Vpmaxud_xmm_xmm_xmmm128       VEX_Vpmaxud_ymm_ymm_ymmm256       EVEX_Vpmaxud_xmm_k1z_xmm_xmmm128b32      EVEX_Vpmaxud_ymm_k1z_ymm_ymmm256b32      EVEX_Vpmaxud_zmm_k1z_zmm_zmmm512b32;
    MaskToVecD:    INVALID                           INVALID                           EVEX_Vpmovm2d_xmm_kr                     EVEX_Vpmovm2d_ymm_kr                     EVEX_Vpmovm2d_zmm_kr;
    BroadcastQ:    VEX_Vpbroadcastq_xmm_xmmm64       VEX_Vpbroadcastq_ymm_xmmm64       EVEX_Vpbroadcastq_xmm_k1z_xmmm64         EVEX_Vpbroadcastq_ymm_k1z_xmmm64         EVEX_Vpbroadcastq_zmm_k1z_xmmm64;
    BroadcastGprQ: INVALID                           INVALID                           EVEX_Vpbroadcastq_xmm_k1z_r64            EVEX_Vpbroadcastq_ymm_k1z_r64            EVEX_Vpbroadcastq_zmm_k1z_r64;
    PAddQ:         VEX_Vpaddq_xmm_xmm_xmmm128        VEX_Vpaddq_ymm_ymm_ymmm256        EVEX_Vpaddq_xmm_k1z_xmm_xmmm128b64       EVEX_Vpaddq_ymm_k1z_ymm_ymmm256b64       EVEX_Vpaddq_zmm_k1z_zmm_zmmm512b64;
    PSubQ:         VEX_Vpsubq_xmm_xmm_xmmm128        VEX_Vpsubq_ymm_ymm_ymmm256        EVEX_Vpsubq_xmm_k1z_xmm_xmmm128b64       EVEX_Vpsubq_ymm_k1z_ymm_ymmm256b64       EVEX_Vpsubq_zmm_k1z_zmm_zmmm512b64;
    PCmpEqQ:       VEX_Vpcmpeqq_xmm_xmm_xmmm128      VEX_Vpcmpeqq_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    PCmpGtQ:       VEX_Vpcmpgtq_xmm_xmm_xmmm128      VEX_Vpcmpgtq_ymm_ymm_ymmm256      INVALID                                  INVALID                                  INVALID;
    CmpKQ:         INVALID                           INVALID                           EVEX_Vpcmpq_kr_k1_xmm_xmmm128b64_imm8    EVEX_Vpcmpq_kr_k1_ymm_ymmm256b64_imm8    EVEX_Vpcmpq_kr_k1_zmm_zmmm512b64_imm8;
    CmpKUQ:        INVALID                           INVALID                           EVEX_Vpcmpuq_kr_k1_xmm_xmmm128b64_imm8   EVEX_Vpcmpuq_kr_k1_ymm_ymmm256b64_imm8   EVEX_Vpcmpuq_kr_k1_zmm_zmmm512b64_imm8;
    BlendMQ:       INVALID                           INVALID                           EVEX_Vpblendmq_xmm_k1z_xmm_xmmm128b64    EVEX_Vpblendmq_ymm_k1z_ymm_ymmm256b64    EVEX_Vpblendmq_zmm_k1z_zmm_zmmm512b64;
    PMinsQ:        INVALID                           INVALID                           EVEX_Vpminsq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpminsq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpminsq_zmm_k1z_zmm_zmmm512b64;
    PMaxsQ:        INVALID                           INVALID                           EVEX_Vpmaxsq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpmaxsq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpmaxsq_zmm_k1z_zmm_zmmm512b64;
    PMinuQ:        INVALID                           INVALID                           EVEX_Vpminuq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpminuq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpminuq_zmm_k1z_zmm_zmmm512b64;
    PMaxuQ:        INVALID                           INVALID                           EVEX_Vpmaxuq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpmaxuq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpmaxuq_zmm_k1z_zmm_zmmm512b64;
    MaskToVecQ:    INVALID                           INVALID                           EVEX_Vpmovm2q_xmm_kr                     EVEX_Vpmovm2q_ymm_kr                     EVEX_Vpmovm2q_zmm_kr;
    PMulLW:        VEX_Vpmullw_xmm_xmm_xmmm128       VEX_Vpmullw_ymm_ymm_ymmm256       EVEX_Vpmullw_xmm_k1z_xmm_xmmm128         EVEX_Vpmullw_ymm_k1z_ymm_ymmm256         EVEX_Vpmullw_zmm_k1z_zmm_zmmm512;
    PMulLD:        VEX_Vpmulld_xmm_xmm_xmmm128       VEX_Vpmulld_ymm_ymm_ymmm256       EVEX_Vpmulld_xmm_k1z_xmm_xmmm128b32      EVEX_Vpmulld_ymm_k1z_ymm_ymmm256b32      EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32;
    PMulLQ:        INVALID                           INVALID                           EVEX_Vpmullq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpmullq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpmullq_zmm_k1z_zmm_zmmm512b64;
    ShlVW:         INVALID                           INVALID                           EVEX_Vpsllvw_xmm_k1z_xmm_xmmm128         EVEX_Vpsllvw_ymm_k1z_ymm_ymmm256         EVEX_Vpsllvw_zmm_k1z_zmm_zmmm512;
    ShrVW:         INVALID                           INVALID                           EVEX_Vpsrlvw_xmm_k1z_xmm_xmmm128         EVEX_Vpsrlvw_ymm_k1z_ymm_ymmm256         EVEX_Vpsrlvw_zmm_k1z_zmm_zmmm512;
    SarVW:         INVALID                           INVALID                           EVEX_Vpsravw_xmm_k1z_xmm_xmmm128         EVEX_Vpsravw_ymm_k1z_ymm_ymmm256         EVEX_Vpsravw_zmm_k1z_zmm_zmmm512;
    ShlVD:         VEX_Vpsllvd_xmm_xmm_xmmm128       VEX_Vpsllvd_ymm_ymm_ymmm256       EVEX_Vpsllvd_xmm_k1z_xmm_xmmm128b32      EVEX_Vpsllvd_ymm_k1z_ymm_ymmm256b32      EVEX_Vpsllvd_zmm_k1z_zmm_zmmm512b32;
    ShrVD:         VEX_Vpsrlvd_xmm_xmm_xmmm128       VEX_Vpsrlvd_ymm_ymm_ymmm256       EVEX_Vpsrlvd_xmm_k1z_xmm_xmmm128b32      EVEX_Vpsrlvd_ymm_k1z_ymm_ymmm256b32      EVEX_Vpsrlvd_zmm_k1z_zmm_zmmm512b32;
    SarVD:         VEX_Vpsravd_xmm_xmm_xmmm128       VEX_Vpsravd_ymm_ymm_ymmm256       EVEX_Vpsravd_xmm_k1z_xmm_xmmm128b32      EVEX_Vpsravd_ymm_k1z_ymm_ymmm256b32      EVEX_Vpsravd_zmm_k1z_zmm_zmmm512b32;
    ShlVQ:         VEX_Vpsllvq_xmm_xmm_xmmm128       VEX_Vpsllvq_ymm_ymm_ymmm256       EVEX_Vpsllvq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpsllvq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpsllvq_zmm_k1z_zmm_zmmm512b64;
    ShrVQ:         VEX_Vpsrlvq_xmm_xmm_xmmm128       VEX_Vpsrlvq_ymm_ymm_ymmm256       EVEX_Vpsrlvq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpsrlvq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpsrlvq_zmm_k1z_zmm_zmmm512b64;
    SarVQ:         INVALID                           INVALID                           EVEX_Vpsravq_xmm_k1z_xmm_xmmm128b64      EVEX_Vpsravq_ymm_k1z_ymm_ymmm256b64      EVEX_Vpsravq_zmm_k1z_zmm_zmmm512b64;
    ShlD:          VEX_Vpslld_xmm_xmm_imm8           VEX_Vpslld_ymm_ymm_imm8           EVEX_Vpslld_xmm_k1z_xmmm128b32_imm8      EVEX_Vpslld_ymm_k1z_ymmm256b32_imm8      EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8;
    ShrD:          VEX_Vpsrld_xmm_xmm_imm8           VEX_Vpsrld_ymm_ymm_imm8           EVEX_Vpsrld_xmm_k1z_xmmm128b32_imm8      EVEX_Vpsrld_ymm_k1z_ymmm256b32_imm8      EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8;
    SarD:          VEX_Vpsrad_xmm_xmm_imm8           VEX_Vpsrad_ymm_ymm_imm8           EVEX_Vpsrad_xmm_k1z_xmmm128b32_imm8      EVEX_Vpsrad_ymm_k1z_ymmm256b32_imm8      EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8;
    ShlQ:          VEX_Vpsllq_xmm_xmm_imm8           VEX_Vpsllq_ymm_ymm_imm8           EVEX_Vpsllq_xmm_k1z_xmmm128b64_imm8      EVEX_Vpsllq_ymm_k1z_ymmm256b64_imm8      EVEX_Vpsllq_zmm_k1z_zmmm512b64_imm8;
    ShrQ:          VEX_Vpsrlq_xmm_xmm_imm8           VEX_Vpsrlq_ymm_ymm_imm8           EVEX_Vpsrlq_xmm_k1z_xmmm128b64_imm8      EVEX_Vpsrlq_ymm_k1z_ymmm256b64_imm8      EVEX_Vpsrlq_zmm_k1z_zmmm512b64_imm8;
    ShrBytes:      VEX_Vpsrldq_xmm_xmm_imm8          VEX_Vpsrldq_ymm_ymm_imm8          EVEX_Vpsrldq_xmm_xmmm128_imm8            EVEX_Vpsrldq_ymm_ymmm256_imm8            EVEX_Vpsrldq_zmm_zmmm512_imm8;
    AndD:          VEX_Vandps_xmm_xmm_xmmm128        VEX_Vandps_ymm_ymm_ymmm256        EVEX_Vandps_xmm_k1z_xmm_xmmm128b32       EVEX_Vandps_ymm_k1z_ymm_ymmm256b32       EVEX_Vandps_zmm_k1z_zmm_zmmm512b32;
    AndnD:         VEX_Vandnps_xmm_xmm_xmmm128       VEX_Vandnps_ymm_ymm_ymmm256       EVEX_Vandnps_xmm_k1z_xmm_xmmm128b32      EVEX_Vandnps_ymm_k1z_ymm_ymmm256b32      EVEX_Vandnps_zmm_k1z_zmm_zmmm512b32;
    OrD:           VEX_Vorps_xmm_xmm_xmmm128         VEX_Vorps_ymm_ymm_ymmm256         EVEX_Vorps_xmm_k1z_xmm_xmmm128b32        EVEX_Vorps_ymm_k1z_ymm_ymmm256b32        EVEX_Vorps_zmm_k1z_zmm_zmmm512b32;
    XorD:          VEX_Vxorps_xmm_xmm_xmmm128        VEX_Vxorps_ymm_ymm_ymmm256        EVEX_Vxorps_xmm_k1z_xmm_xmmm128b32       EVEX_Vxorps_ymm_k1z_ymm_ymmm256b32       EVEX_Vxorps_zmm_k1z_zmm_zmmm512b32;
    PBlendVB:      VEX_Vpblendvb_xmm_xmm_xmmm128_xmm VEX_Vpblendvb_ymm_ymm_ymmm256_ymm INVALID                                  INVALID                                  INVALID;
    PMovMskB:      VEX_Vpmovmskb_r32_xmm             VEX_Vpmovmskb_r32_ymm             INVALID                                  INVALID                                  INVALID;
    MovSxBW:       VEX_Vpmovsxbw_xmm_xmmm64          VEX_Vpmovsxbw_ymm_xmmm128         EVEX_Vpmovsxbw_xmm_k1z_xmmm64            EVEX_Vpmovsxbw_ymm_k1z_xmmm128           EVEX_Vpmovsxbw_zmm_k1z_ymmm256;
    MovZxBW:       VEX_Vpmovzxbw_xmm_xmmm64          VEX_Vpmovzxbw_ymm_xmmm128         EVEX_Vpmovzxbw_xmm_k1z_xmmm64            EVEX_Vpmovzxbw_ymm_k1z_xmmm128           EVEX_Vpmovzxbw_zmm_k1z_ymmm256;
    MovSxBD:       VEX_Vpmovsxbd_xmm_xmmm32          VEX_Vpmovsxbd_ymm_xmmm64          EVEX_Vpmovsxbd_xmm_k1z_xmmm32            EVEX_Vpmovsxbd_ymm_k1z_xmmm64            EVEX_Vpmovsxbd_zmm_k1z_xmmm128;
    MovZxBD:       VEX_Vpmovzxbd_xmm_xmmm32          VEX_Vpmovzxbd_ymm_xmmm64          EVEX_Vpmovzxbd_xmm_k1z_xmmm32            EVEX_Vpmovzxbd_ymm_k1z_xmmm64            EVEX_Vpmovzxbd_zmm_k1z_xmmm128;
    MovSxBQ:       VEX_Vpmovsxbq_xmm_xmmm16          VEX_Vpmovsxbq_ymm_xmmm32          EVEX_Vpmovsxbq_xmm_k1z_xmmm16            EVEX_Vpmovsxbq_ymm_k1z_xmmm32            EVEX_Vpmovsxbq_zmm_k1z_xmmm64;
    MovZxBQ:       VEX_Vpmovzxbq_xmm_xmmm16          VEX_Vpmovzxbq_ymm_xmmm32          EVEX_Vpmovzxbq_xmm_k1z_xmmm16            EVEX_Vpmovzxbq_ymm_k1z_xmmm32            EVEX_Vpmovzxbq_zmm_k1z_xmmm64;
    MovSxWD:       VEX_Vpmovsxwd_xmm_xmmm64          VEX_Vpmovsxwd_ymm_xmmm128         EVEX_Vpmovsxwd_xmm_k1z_xmmm64            EVEX_Vpmovsxwd_ymm_k1z_xmmm128           EVEX_Vpmovsxwd_zmm_k1z_ymmm256;
    MovZxWD:       VEX_Vpmovzxwd_xmm_xmmm64          VEX_Vpmovzxwd_ymm_xmmm128         EVEX_Vpmovzxwd_xmm_k1z_xmmm64            EVEX_Vpmovzxwd_ymm_k1z_xmmm128           EVEX_Vpmovzxwd_zmm_k1z_ymmm256;
    MovSxWQ:       VEX_Vpmovsxwq_xmm_xmmm32          VEX_Vpmovsxwq_ymm_xmmm64          EVEX_Vpmovsxwq_xmm_k1z_xmmm32            EVEX_Vpmovsxwq_ymm_k1z_xmmm64            EVEX_Vpmovsxwq_zmm_k1z_xmmm128;
    MovZxWQ:       VEX_Vpmovzxwq_xmm_xmmm32          VEX_Vpmovzxwq_ymm_xmmm64          EVEX_Vpmovzxwq_xmm_k1z_xmmm32            EVEX_Vpmovzxwq_ymm_k1z_xmmm64            EVEX_Vpmovzxwq_zmm_k1z_xmmm128;
    MovSxDQ:       VEX_Vpmovsxdq_xmm_xmmm64          VEX_Vpmovsxdq_ymm_xmmm128         EVEX_Vpmovsxdq_xmm_k1z_xmmm64            EVEX_Vpmovsxdq_ymm_k1z_xmmm128           EVEX_Vpmovsxdq_zmm_k1z_ymmm256;
    MovZxDQ:       VEX_Vpmovzxdq_xmm_xmmm64          VEX_Vpmovzxdq_ymm_xmmm128         EVEX_Vpmovzxdq_xmm_k1z_xmmm64            EVEX_Vpmovzxdq_ymm_k1z_xmmm128           EVEX_Vpmovzxdq_zmm_k1z_ymmm256;
    NarrowWB:      INVALID                           INVALID                           EVEX_Vpmovwb_xmmm64_k1z_xmm              EVEX_Vpmovwb_xmmm128_k1z_ymm             EVEX_Vpmovwb_ymmm256_k1z_zmm;
    NarrowDB:      INVALID                           INVALID                           EVEX_Vpmovdb_xmmm32_k1z_xmm              EVEX_Vpmovdb_xmmm64_k1z_ymm              EVEX_Vpmovdb_xmmm128_k1z_zmm;
    NarrowDW:      INVALID                           INVALID                           EVEX_Vpmovdw_xmmm64_k1z_xmm              EVEX_Vpmovdw_xmmm128_k1z_ymm             EVEX_Vpmovdw_ymmm256_k1z_zmm;
    NarrowQB:      INVALID                           INVALID                           EVEX_Vpmovqb_xmmm16_k1z_xmm              EVEX_Vpmovqb_xmmm32_k1z_ymm              EVEX_Vpmovqb_xmmm64_k1z_zmm;
    NarrowQW:      INVALID                           INVALID                           EVEX_Vpmovqw_xmmm32_k1z_xmm              EVEX_Vpmovqw_xmmm64_k1z_ymm              EVEX_Vpmovqw_xmmm128_k1z_zmm;
    NarrowQD:      INVALID                           INVALID                           EVEX_Vpmovqd_xmmm64_k1z_xmm              EVEX_Vpmovqd_xmmm128_k1z_ymm             EVEX_Vpmovqd_ymmm256_k1z_zmm;
    CvtDqPs:       VEX_Vcvtdq2ps_xmm_xmmm128         VEX_Vcvtdq2ps_ymm_ymmm256         EVEX_Vcvtdq2ps_xmm_k1z_xmmm128b32        EVEX_Vcvtdq2ps_ymm_k1z_ymmm256b32        EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er;
    CvtPsDq:       VEX_Vcvttps2dq_xmm_xmmm128        VEX_Vcvttps2dq_ymm_ymmm256        EVEX_Vcvttps2dq_xmm_k1z_xmmm128b32       EVEX_Vcvttps2dq_ymm_k1z_ymmm256b32       EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae;
    CvtDqPd:       VEX_Vcvtdq2pd_xmm_xmmm64          VEX_Vcvtdq2pd_ymm_xmmm128         EVEX_Vcvtdq2pd_xmm_k1z_xmmm64b32         EVEX_Vcvtdq2pd_ymm_k1z_xmmm128b32        EVEX_Vcvtdq2pd_zmm_k1z_ymmm256b32_er;
    CvtPdDq:       VEX_Vcvttpd2dq_xmm_xmmm128        VEX_Vcvttpd2dq_xmm_ymmm256        EVEX_Vcvttpd2dq_xmm_k1z_xmmm128b64       EVEX_Vcvttpd2dq_xmm_k1z_ymmm256b64       EVEX_Vcvttpd2dq_ymm_k1z_zmmm512b64_sae;
    CvtQqPd:       INVALID                           INVALID                           EVEX_Vcvtqq2pd_xmm_k1z_xmmm128b64        EVEX_Vcvtqq2pd_ymm_k1z_ymmm256b64        EVEX_Vcvtqq2pd_zmm_k1z_zmmm512b64_er;
    CvtPdQq:       INVALID                           INVALID                           EVEX_Vcvttpd2qq_xmm_k1z_xmmm128b64       EVEX_Vcvttpd2qq_ymm_k1z_ymmm256b64       EVEX_Vcvttpd2qq_zmm_k1z_zmmm512b64_sae;
    CvtPsPd:       VEX_Vcvtps2pd_xmm_xmmm64          VEX_Vcvtps2pd_ymm_xmmm128         EVEX_Vcvtps2pd_xmm_k1z_xmmm64b32         EVEX_Vcvtps2pd_ymm_k1z_xmmm128b32        EVEX_Vcvtps2pd_zmm_k1z_ymmm256b32_sae;
    CvtPdPs:       VEX_Vcvtpd2ps_xmm_xmmm128         VEX_Vcvtpd2ps_xmm_ymmm256         EVEX_Vcvtpd2ps_xmm_k1z_xmmm128b64        EVEX_Vcvtpd2ps_xmm_k1z_ymmm256b64        EVEX_Vcvtpd2ps_ymm_k1z_zmmm512b64_er;
    CvtUdqPs:      INVALID                           INVALID                           EVEX_Vcvtudq2ps_xmm_k1z_xmmm128b32       EVEX_Vcvtudq2ps_ymm_k1z_ymmm256b32       EVEX_Vcvtudq2ps_zmm_k1z_zmmm512b32_er;
}
